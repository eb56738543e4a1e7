"""Measure models: a policy by its answers to prompts, a reward model by its scores of rankings.

A ranking is a prompt with a chosen and a rejected answer. The report gives each number with its sample size `n` and
its 95% interval.
"""
