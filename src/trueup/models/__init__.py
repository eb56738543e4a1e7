"""Load models, give them roles and adapters, run micro-batches through them; and rewards."""
