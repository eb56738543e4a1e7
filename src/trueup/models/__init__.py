"""Models: loading, roles and adapters, forward passes of micro-batches, and reward functions."""
