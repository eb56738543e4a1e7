"""Experiments in the wind tunnel, over many seeds: claims of the literature and our own, where truth is known."""
