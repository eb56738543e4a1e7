"""From rows to tokens on disk: built once by all cores, cached, checked, split, and read a row at a time.

    pack.py        a chunk of rows -> tokens, masks and records: what a worker process does
    spread.py      the same by many processes
    build.py       a section's chunks -> a folder in the cache, whose name is a hash of all that the tokens depend on
    store.py       that folder, written and read
    select.py      which rows are used: limit, holdout; views that leave the rows on disk
    fitting.py     the length rule
    duplicates.py  MinHash signatures, and equal keys among millions in bounded memory
    near.py        near-duplicates, and held-out rows that are trained on
    survey.py      numbers of a section's rows
    findings.py    faults and warnings, in words
    prepare.py     all of it for a stage

Nothing here imports torch.
"""
