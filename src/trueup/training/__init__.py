"""The training loop for all stages: terms in, optimizer steps, checkpoints and metrics out."""
