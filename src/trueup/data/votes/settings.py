"""Settings of a vote store; each change is stored as an event."""

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
    """Return the current settings of the store."""
    return StoreSettings(**(remembered(connection, "settings") or {}))


def configure(connection: Connection, new: StoreSettings) -> None:
    """Change the settings of the store, and redraw the random order of its pairs if the seed changed.

    Raises:
        ConfigError: a value is out of range, e.g. `raters_per_pair` is 0.
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
    """Return the store's random secret, which keeps raters from predicting its random choices.

    "" if it has none yet.
    """
    return remembered(connection, "salt") or ""


def key(connection: Connection) -> str:
    """Return the text that seeds all random choices of the store: its secret and the seed from the settings."""
    return f"{salt(connection)} {current(connection).seed}"


def complete(connection: Connection) -> None:
    """Give a store that has no secret yet a random one, and redraw the order of its pairs and prompts with it."""
    if not salt(connection):
        remember(connection, "salt", secrets.token_hex(16))
        content.reorder(connection, key(connection))


def remembered(connection: Connection, name: str) -> Any:
    """Return the value stored under `name` in the table `meta`, e.g. the current settings; None if there is none."""
    return connection.execute(select(meta.c.value).where(meta.c.key == name)).scalar_one_or_none()


def remember(connection: Connection, name: str, value: Any) -> None:
    """Store a value under `name` in the table `meta` (settings, secret, name of the reward model that scored last)."""
    added = insert(meta).values(key=name, value=value)
    connection.execute(added.on_conflict_do_update(index_elements=[meta.c.key], set_={"value": added.excluded.value}))


def _check(new: StoreSettings) -> None:
    checks = {
        "raters_per_pair": (1 <= new.raters_per_pair <= 1_000, "a number from 1 to 1000"),
        "gold_every": (0 <= new.gold_every < 2**31, "0 (never), or a number of pairs"),
        "policy": (new.policy in ("random", "uncertain"), "random or uncertain"),
        "lease_seconds": (new.lease_seconds > 0 and math.isfinite(new.lease_seconds), "seconds, more than 0"),
        "seed": (-(2**63) <= new.seed < 2**63, "a whole number of 64 bits"),
    }
    for name, (is_valid, expected) in checks.items():
        if not is_valid:
            raise ConfigError(f"{name}: {getattr(new, name)!r} is out of range\n  fix: {expected}")
