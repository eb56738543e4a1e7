"""The store of rankings: one SQLite file of prompts, pairs, raters and events.

store       every method, each a transaction
schema      what goes in and comes out
header      whether a file is a store, without SQLAlchemy
database    the file, its transactions, its errors in words; `tables` what is in it
content     prompts and pairs; `raters`, `settings`, `scoring` as they say
choosing    which pair is next; `leases` keeps it for its rater, `draws` is the chance in it
votes       votes and undos as events; `ballots` checks, `importing` brings those given elsewhere
derived     what is counted from events; `counting` reads it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueup.data.votes.header import StoreFault, is_store
from trueup.data.votes.schema import (
    CHOICES,
    MOST_EDIT,
    MOST_NAME,
    MOST_NOTE,
    REASONS,
    STRENGTHS,
    Added,
    Answer,
    Ballot,
    Choice,
    Counts,
    NewPair,
    NewPrompt,
    Pair,
    Policy,
    Progress,
    Prompt,
    Rater,
    Settings,
    Shown,
    Side,
    Vote,
)
from trueup.errors import MissingExtraError

if TYPE_CHECKING:
    from trueup.data.votes.store import Store

__all__ = [
    "CHOICES",
    "MOST_EDIT",
    "MOST_NAME",
    "MOST_NOTE",
    "REASONS",
    "STRENGTHS",
    "Added",
    "Answer",
    "Ballot",
    "Choice",
    "Counts",
    "NewPair",
    "NewPrompt",
    "Pair",
    "Policy",
    "Progress",
    "Prompt",
    "Rater",
    "Settings",
    "Shown",
    "Side",
    "Store",
    "StoreFault",
    "Vote",
    "is_store",
]


def __getattr__(name: str) -> Any:
    """`Store`, imported when it is asked for: SQLAlchemy is an extra, and `is_store` looks at every data file."""
    if name != "Store":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from trueup.data.votes.store import Store
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sqlalchemy":
            raise
        raise MissingExtraError("a store of rankings needs the extra rank: pip install 'trueup[rank]'") from error
    return Store
