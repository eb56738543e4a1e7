"""A run on disk: its folder, checkpoints, state, environment and trackers."""
