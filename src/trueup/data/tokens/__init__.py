"""Rows as tokens on disk: tokenized once by all cores, cached, checked, split, and read a row at a time.

    record.py      the fixed-size record and the flags of a row
    pack.py        tokens, masks and records of a chunk of rows, made in a worker process
    spread.py      the worker processes
    build.py       the cache: a folder per section, named by a hash of everything that its tokens depend on
    store.py       that folder, written and read
    select.py      limit and holdout; views of rows that stay on disk
    fitting.py     the length rule
    sampler.py     the rows of each optimizer step
    duplicates.py  MinHash signatures, and groups of equal keys in bounded memory
    near.py        near-duplicates, and held-out rows that are trained on
    survey.py      numbers of a section's rows
    findings.py    faults and warnings, in words
    prepare.py     all of this for a stage

Nothing here imports torch.
"""
