"""The settings of a store; each change is an event."""

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
    """Return the current settings."""
    return StoreSettings(**(remembered(connection, "settings") or {}))


def configure(connection: Connection, new: StoreSettings) -> None:
    """Change the settings.

    Raises:
        ConfigError: a value is out of range.
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
    """Return the store's secret, so that raters cannot predict its random choices; "" if it has none yet."""
    return remembered(connection, "salt") or ""


def key(connection: Connection) -> str:
    """Return the key of the store's random choices: its secret and the current seed."""
    return f"{salt(connection)} {current(connection).seed}"


def complete(connection: Connection) -> None:
    """Give a store without a secret one, and draw its order by it."""
    if not salt(connection):
        remember(connection, "salt", secrets.token_hex(16))
        content.reorder(connection, key(connection))


def remembered(connection: Connection, name: str) -> Any:
    """Return a value of `meta`; None if there is none."""
    return connection.execute(select(meta.c.value).where(meta.c.key == name)).scalar_one_or_none()


def remember(connection: Connection, name: str, value: Any) -> None:
    """Set a value of `meta`."""
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
