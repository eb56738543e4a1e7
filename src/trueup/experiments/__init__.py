"""Experiments in the wind tunnel, over many seeds: claims of the literature and our own, where the truth is known."""
