"""Measure models: a policy on prompts, a reward model on rankings, each number with its n and interval."""
