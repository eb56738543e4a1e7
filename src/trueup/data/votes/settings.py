"""How a store is ranked: the settings that count now, each change of them an event."""

from __future__ import annotations

import math
import secrets
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from trueup.data.votes import content
from trueup.data.votes.database import now_utc
from trueup.data.votes.tables import events, meta
from trueup.data.votes.vote_types import StoreSettings
from trueup.errors import ConfigError


def current(connection: Connection) -> StoreSettings:
    """The settings that count now."""
    return StoreSettings(**(remembered(connection, "settings") or {}))


def configure(connection: Connection, new: StoreSettings) -> None:
    """Let other settings count from now on.

    Raises:
        ConfigError: one cannot be meant.
    """
    _check(new)
    old = current(connection)
    if new == old:
        return
    connection.execute(insert(events).values(at=now_utc(), kind="settings", settings=asdict(new)))
    remember(connection, "settings", asdict(new))
    if new.seed != old.seed:
        content.reorder(connection, key(connection))


def salt(connection: Connection) -> str:
    """The store's secret, by which chance is no one's to foresee; "": it has none yet."""
    return remembered(connection, "salt") or ""


def key(connection: Connection) -> str:
    """What the store's chance is drawn by: its secret, and the seed that counts now."""
    return f"{salt(connection)} {current(connection).seed}"


def complete(connection: Connection) -> None:
    """Give a store its secret, if it has none, and draw its order by it."""
    if not salt(connection):
        remember(connection, "salt", secrets.token_hex(16))
        content.reorder(connection, key(connection))


def remembered(connection: Connection, name: str) -> Any:
    """A value of `meta`; None: there is none."""
    return connection.execute(select(meta.c.value).where(meta.c.key == name)).scalar_one_or_none()


def remember(connection: Connection, name: str, value: Any) -> None:
    """Set a value of `meta`."""
    added = insert(meta).values(key=name, value=value)
    connection.execute(added.on_conflict_do_update(index_elements=[meta.c.key], set_={"value": added.excluded.value}))


def _check(new: StoreSettings) -> None:
    wrong = {
        "raters_per_pair": (1 <= new.raters_per_pair <= 1_000, "a number from 1 to 1000"),
        "gold_every": (0 <= new.gold_every < 2**31, "0 (never), or a number of pairs"),
        "policy": (new.policy in ("random", "uncertain"), "random or uncertain"),
        "lease_seconds": (new.lease_seconds > 0 and math.isfinite(new.lease_seconds), "seconds, more than 0"),
        "seed": (-(2**63) <= new.seed < 2**63, "a whole number of 64 bits"),
    }
    for name, (right, wanted) in wrong.items():
        if not right:
            raise ConfigError(f"{name}: {getattr(new, name)!r} cannot be meant\n  fix: {wanted}")
