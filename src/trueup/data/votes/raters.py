"""Who ranks: names, invitations and sessions. Only sha256 of a secret is kept, so the file alone lets nobody in."""

from __future__ import annotations

import hashlib
import secrets as random_secrets
import unicodedata
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from trueup.data.votes.database import now_utc
from trueup.data.votes.tables import raters, secrets
from trueup.data.votes.vote_types import MOST_NAME, Rater
from trueup.errors import DataError
from trueup.system.text import clean, excerpt

SecretKind = Literal["invitation", "session"]
_LASTS = 30 * 86_400.0
"""Seconds that a session lets its bearer in; an invitation does for good."""


def normalize_name(name: str) -> str:
    """A rater's name as it is kept: without spaces around it, composed (NFC).

    Raises:
        DataError: nothing is left, it is too long, or it holds characters that cannot be seen.
    """
    name = unicodedata.normalize("NFC", name).strip()
    if not name:
        raise DataError("the rater's name is empty\n  fix: type a name")
    if len(name) > MOST_NAME:
        raise DataError(f"the rater's name has {len(name):,} characters\n  fix: at most {MOST_NAME}")
    if clean(name, one_line=True) != name:
        raise DataError(f"the rater's name {excerpt(name)} holds control characters\n  fix: letters, digits, spaces")
    return name


def find_rater(connection: Connection, name: str) -> Rater | None:
    """The rater of a proper name; None: nobody is called so yet."""
    found = connection.execute(select(raters.c.id).where(raters.c.name == name)).scalar_one_or_none()
    return None if found is None else Rater(found, name)


def find_or_add_rater(connection: Connection, name: str) -> Rater:
    """The rater of a proper name, made if new."""
    found = find_rater(connection, name)
    if found is not None:
        return found
    connection.execute(insert(raters).values(name=name, added=now_utc()))
    return find_rater(connection, name) or Rater(0, name)


def all_raters(connection: Connection) -> list[Rater]:
    """All raters, in the order they came."""
    return [Rater(row.id, row.name) for row in connection.execute(select(raters).order_by(raters.c.id))]


def new_secret(connection: Connection, rater: Rater, kind: SecretKind, *, guest: bool | None = None) -> str:
    """A secret of 192 bits that stands for a rater."""
    secret = random_secrets.token_urlsafe(24)
    row = {"digest": _digest(secret), "rater": rater.id, "kind": kind, "added": now_utc(), "guest": guest}
    connection.execute(insert(secrets).values(row))
    return secret


def rater_of_invitation(connection: Connection, token: str) -> Rater | None:
    """Whose invitation it is; None: nobody's."""
    return _bearer(connection, token, secrets.c.kind == "invitation")


def rater_of_session(connection: Connection, secret: str, *, guests: bool, now: float) -> Rater | None:
    """Whose session it is; None: nobody's, too old, or, without `guests`, not known to be an invited one's."""
    since = datetime.fromtimestamp(now - _LASTS, UTC).isoformat(timespec="milliseconds")
    asked = [secrets.c.kind == "session", secrets.c.added > since]
    return _bearer(connection, secret, *asked, *([] if guests else [secrets.c.guest.is_(False)]))


def end_session(connection: Connection, secret: str) -> None:
    """Let a session be nobody's."""
    connection.execute(delete(secrets).where(secrets.c.digest == _digest(secret), secrets.c.kind == "session"))


def _bearer(connection: Connection, secret: str, *where: ColumnElement[bool]) -> Rater | None:
    found = select(raters).join(secrets).where(secrets.c.digest == _digest(secret), *where)
    row = connection.execute(found).one_or_none()
    return None if row is None else Rater(row.id, row.name)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
