"""Experiments in the wind tunnel, over many seeds: they test claims of the literature and our own on known truth."""
