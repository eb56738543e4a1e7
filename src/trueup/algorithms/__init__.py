"""Algorithms as pure functions: tensors in, unreduced tensors out; no model, no data, no reduction over a batch."""
