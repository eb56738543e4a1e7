"""trueup and TRL side by side on the same work: `python -m benchmarks`, or `make bench`. See docs/speed.md."""
