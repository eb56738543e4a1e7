"""Data sources: a path or hub id to typed rows, with every row accounted for.

reader    a path or id -> entries, one after another (`finding` where, `reading` `decoding` `jsonfile` `tables`
          `rankings` how)
parser    an entry -> a row of the kind that is wanted (`formats`, `records`)
stream    rows one after another, counted; `loading` holds all of them
"""

from __future__ import annotations

from trueup.data.sources.decoding import Entry
from trueup.data.sources.loading import load, load_records, load_section
from trueup.data.sources.parser import Parser, Want, same_answers
from trueup.data.sources.reader import Reader, open_reader, store_events, store_version
from trueup.data.sources.rows import Counts, Drop, Rows
from trueup.data.sources.stream import DataSection, Stream, lines, stream, unusable

__all__ = [
    "Counts",
    "DataSection",
    "Drop",
    "Entry",
    "Parser",
    "Reader",
    "Rows",
    "Stream",
    "Want",
    "lines",
    "load",
    "load_records",
    "load_section",
    "open_reader",
    "same_answers",
    "store_events",
    "store_version",
    "stream",
    "unusable",
]
