"""Answers written ahead of the raters, by a process of its own.

ahead     the process as the server sees it: started, asked, ended
process   the process itself; `line` is its line to the server
pairing   which models answer which prompt, and the answers as pairs in the store
scoring   the reward model's scores of pairs, by which uncertain ones come first
"""
