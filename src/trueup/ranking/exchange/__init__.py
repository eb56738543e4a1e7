"""Export and import of rankings: votes as rows of data, other tools' rankings as votes, prompts and pairs to rank.

exporting     a store's votes as a file that every stage reads
importing     a file of rankings as pairs and votes
vote_formats  a record of a file as votes on pairs: our own rows, and other tools' formats
prompts       the files of prompts and pairs to rank
reading       files to records, records to pairs
"""

from __future__ import annotations

from trueup.ranking.exchange.exporting import Exported, export
from trueup.ranking.exchange.importing import Imported, import_file
from trueup.ranking.exchange.prompts import read_pairs, read_prompts
from trueup.ranking.exchange.reading import count_empty_messages, empty_message_note

__all__ = [
    "Exported",
    "Imported",
    "count_empty_messages",
    "empty_message_note",
    "export",
    "import_file",
    "read_pairs",
    "read_prompts",
]
