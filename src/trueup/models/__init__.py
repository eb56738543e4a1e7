"""Models: loaded, given roles and adapters, run over many sequences at once; and rewards."""
