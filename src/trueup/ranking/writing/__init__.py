"""Answers written before raters ask for them, by a separate process.

ahead     the process as the server sees it: started, asked for a pair, ended
process   the process itself
line      its connection to the server
pairing   which models answer which prompt, and the answers as pairs in the store
scoring   the reward model's scores of pairs, by which uncertain ones come first
"""
