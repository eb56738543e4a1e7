"""Recipes of the four training stages (SFT, reward model, DPO, PPO), each of which assembles terms for `loop.fit`.

`pipeline` runs several stages in order.
"""
