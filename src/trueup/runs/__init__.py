"""Files of a training run: its folder, checkpoints, saved state, environment, and experiment trackers."""
