"""Compare trueup and TRL on the same work: `python -m benchmarks`, or `make bench`. See docs/speed.md."""
