"""Rows as tokens on disk: tokenized once by all cores, cached, checked, split, and read a row at a time.

record.py      the fixed-size record and the flags (properties) stored for each row
pack.py        makes the tokens, masks and records of a chunk of rows, in a worker process
spread.py      starts the worker processes
build.py       the cache: a folder per data section, named by a hash of everything that its tokens depend on
store.py       writes and reads such a folder
select.py      applies limit and holdout; views of selected rows that stay on disk
fitting.py     applies the limit of length (`max_length`): error, drop or cut
sampler.py     chooses the rows of each optimizer step
duplicates.py  MinHash signatures, and groups of equal keys in bounded memory
near.py        finds near-duplicates, and held-out rows that are trained on
survey.py      counts over a section's rows: lengths, flags, labels, languages
findings.py    turns these counts into faults and warnings in words
prepare.py     does all of this for a training stage

Nothing here imports torch.
"""
