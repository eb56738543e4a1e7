"""`trueup chat`: talk to a model, or to two side by side, and save conversations and rankings as training data.

session.py    the commands and the main loop
dialogue.py   the messages and answers of a conversation, and which answer was preferred
speaker.py    a loaded model that answers
streaming.py  shows text as it is sampled, cut exactly before a stop text
screen.py     lines read from a person, answers in columns
saved.py      conversations and rankings appended to data files
"""
