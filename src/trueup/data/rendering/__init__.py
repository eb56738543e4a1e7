"""Messages and rows, and the one seam between messages and tokens. Nothing here imports torch or transformers.

messages.py   what rows are made of, and the errors that name their places
encoding.py   text to ids, fast; control tokens spelled in a text stay text
limits.py     time and memory that a chat template may take
template.py   what a chat template writes around messages, found by probing
renderer.py   messages to ids and masks, and back
"""
