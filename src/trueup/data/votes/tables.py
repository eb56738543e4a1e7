"""The database schema of a vote store, and the triggers that refuse changes of prompts, pairs and events.

Permanent tables: prompts, pairs, raters, secrets, events, scores; rows of prompts, pairs and events can never be
changed. Temporary: leases (pairs reserved for a rater). Derived, so that the next pair is found in a millisecond among
100,000: standing, tallies, levels and shares, which `counting.rebuild` recomputes from the other tables.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def _required(name: str, kind: type[TypeEngine[Any]] = Text, *rest: SchemaItem, unique: bool = False) -> Column[Any]:
    return Column(name, kind, *rest, nullable=False, unique=unique or None)


meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    _required("value", JSON),  # the current settings, the secret, and the reward model that scored last
)

prompts = Table(
    "prompts",
    metadata,
    Column("id", Integer, primary_key=True),
    _required("digest", LargeBinary, unique=True),  # of the messages
    _required("messages", JSON),
    _required("tags", JSON),
    _required("origin"),
    _required("added"),
)

pairs = Table(
    "pairs",
    metadata,
    Column("id", Integer, primary_key=True),
    _required("digest", LargeBinary, unique=True),  # of prompt, texts and models, in either order
    _required("prompt", Integer, ForeignKey("prompts.id")),
    _required("first"),
    _required("first_model"),
    _required("first_sampling", JSON),
    _required("second"),
    _required("second_model"),
    _required("second_sampling", JSON),
    Column("gold", Text, CheckConstraint("gold IN ('first', 'second')")),
    _required("added"),
    Index("pairs_of_prompt", "prompt"),
)

raters = Table(
    "raters",
    metadata,
    Column("id", Integer, primary_key=True),
    _required("name", unique=True),
    _required("added"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # sha256: nobody can sign in with what the file holds
    _required("rater", Integer, ForeignKey("raters.id")),
    _required("kind", Text, CheckConstraint("kind IN ('invitation', 'session')")),
    _required("added"),
    Column("guest", Boolean),  # a session begun by typing a name; NULL: unknown, in stores of the first version
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    _required("at"),
    _required("kind", Text, CheckConstraint("kind IN ('vote', 'undo', 'settings')")),
    Column("rater", Integer, ForeignKey("raters.id")),
    Column("request", Text),
    Column("pair", Integer, ForeignKey("pairs.id")),
    # votes
    Column("left", Text),
    Column("policy", Text),
    Column("score", Float),
    Column("choice", Text),
    Column("strength", Integer),
    Column("reasons", JSON(none_as_null=True)),
    Column("note", Text),
    Column("edit", Text),
    Column("edit_of", Text),
    Column("seconds", Float),
    # undo: the vote that is undone; settings: all settings
    Column("undoes", Integer, ForeignKey("events.id"), unique=True),
    Column("settings", JSON(none_as_null=True)),
    UniqueConstraint("rater", "request"),
    Index("events_of_pair", "pair"),
    sqlite_autoincrement=True,
)

scores = Table(
    "scores",
    metadata,
    _required("model"),
    _required("pair", Integer, ForeignKey("pairs.id")),
    _required("margin", Float),  # r(first) - r(second), nats
    UniqueConstraint("model", "pair"),
)

leases = Table(
    "leases",
    metadata,
    Column("id", Integer, primary_key=True),
    _required("rater", Integer, ForeignKey("raters.id")),
    _required("pair", Integer, ForeignKey("pairs.id")),
    _required("left"),
    _required("policy"),
    Column("score", Float),
    _required(
        "until", Float
    ),  # Unix seconds; an expired lease stays until the rater votes: only shown pairs can be voted on
    UniqueConstraint("rater", "pair"),
    Index("leases_of_pair", "pair"),
    sqlite_autoincrement=True,
)

standing = Table(  # votes that were not undone
    "standing",
    metadata,
    Column("rater", Integer, primary_key=True),
    Column("pair", Integer, primary_key=True),
    _required("vote", Integer),
    _required("counted", Boolean),  # False for a skip
    Index("standing_in_order", "rater", "vote"),
    sqlite_with_rowid=False,
)

tallies = Table(
    "tallies",
    metadata,
    Column("pair", Integer, primary_key=True),
    _required("gold", Boolean),
    _required("position", Integer),  # in the store's random order
    Column("uncertainty", Float),  # 0 to 1, by the reward model that scored last; NULL: not scored
    _required("votes", Integer),  # standing votes without skips
    _required("seen", Integer),  # standing votes with skips
    _required("latest", Integer),  # latest event about the pair; 0: none
    Index("tallies_by_latest", "gold", "votes", "latest"),
    Index("tallies_by_position", "gold", "seen", "position"),
    Index("tallies_gold", "gold", "position"),
)
Index("tallies_by_uncertainty", tallies.c.gold, tallies.c.seen, tallies.c.uncertainty.desc(), tallies.c.position)

levels = Table(  # how many pairs have how many votes
    "levels",
    metadata,
    Column("gold", Boolean, primary_key=True),
    Column("votes", Integer, primary_key=True),
    Column("seen", Integer, primary_key=True),
    _required("pairs", Integer),
    sqlite_with_rowid=False,
)

shares = Table(  # how many pairs a prompt has, without gold ones
    "shares",
    metadata,
    Column("prompt", Integer, primary_key=True),
    _required("position", Integer),
    _required("pairs", Integer),
    Index("shares_in_order", "pairs", "position"),
)

_FOREVER = (prompts, pairs, events)


def create(connection: Connection) -> None:
    """Create the tables of a new store, and the triggers that refuse changes of prompts, pairs and events."""
    metadata.create_all(connection)
    for table in _FOREVER:
        for statement in ("UPDATE", "DELETE"):
            _refuse(connection, f"{table.name}_no_{statement.lower()}", f"{statement} ON {table.name}")
    # INSERT OR REPLACE removes the conflicting row without firing the triggers above.
    same = "WHEN EXISTS (SELECT 1 FROM events WHERE id = NEW.id OR (rater = NEW.rater AND request = NEW.request))"
    _refuse(connection, "events_no_replace", f"INSERT ON events {same}")


def complete(connection: Connection) -> None:
    """Add the columns that the tables of stores made by earlier versions lack."""
    columns = connection.exec_driver_sql(f"PRAGMA table_info({secrets.name})")
    if secrets.c.guest.name not in {row.name for row in columns}:
        connection.exec_driver_sql(f"ALTER TABLE {secrets.name} ADD COLUMN {secrets.c.guest.name} BOOLEAN")


def _refuse(connection: Connection, name: str, when: str) -> None:
    connection.exec_driver_sql(
        f"CREATE TRIGGER {name} BEFORE {when} BEGIN SELECT RAISE(ABORT, 'what was said is never overwritten'); END"
    )
