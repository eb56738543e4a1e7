"""Data sources: from a path or hub id to typed rows, with a count of every row that is read.

reader.py    opens a source and gives its entries (a row's fields, or the error of reading it) one after another
finding.py   finds the files of a source; `reading.py`, `decoding.py`, `jsonfile.py` and `tables.py` read them
rankings.py  reads a vote store
parser.py    makes a typed row of an entry; `formats.py` and `records.py` define how each format is read
account.py   counts the rows: read, used, dropped, not selected, unusable
stream.py    the typed rows of one data section of the configuration, one after another
"""
