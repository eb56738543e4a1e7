"""Training loop for all stages: it takes the loss's terms and makes optimizer steps, checkpoints and logged metrics."""
