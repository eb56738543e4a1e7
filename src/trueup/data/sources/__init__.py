"""Data sources: from a path or hub id to typed rows, each of them counted.

reader.py    opens a source and gives its entries one after another; `finding.py` finds its files, and `reading.py`,
             `decoding.py`, `jsonfile.py`, `tables.py` and `rankings.py` read one kind of file each
parser.py    makes a typed row of an entry; `formats.py` and `records.py` say how each format is read
account.py   counts the rows: read, used, dropped, not selected, unusable
stream.py    the rows of a data section, counted
"""
