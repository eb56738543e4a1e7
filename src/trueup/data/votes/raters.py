"""Raters: their names, invitations and sessions.

Only the sha256 of a secret is stored, so the file lets nobody sign in.
"""

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
"""Seconds that a session lasts; an invitation has no end."""


def normalize_name(name: str) -> str:
    """Return a rater's name as it is stored: without outer spaces, in Unicode form NFC.

    Raises:
        DataError: the name is empty, longer than 60 characters, or holds control characters.
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
    """Return the rater with this name (as `normalize_name` returns it); None if there is none."""
    rater_id = connection.execute(select(raters.c.id).where(raters.c.name == name)).scalar_one_or_none()
    return None if rater_id is None else Rater(rater_id, name)


def find_or_add_rater(connection: Connection, name: str) -> Rater:
    """Return the rater with this name (as `normalize_name` returns it), who is added if new."""
    rater = find_rater(connection, name)
    if rater is not None:
        return rater
    connection.execute(insert(raters).values(name=name, added=now_utc()))
    return find_rater(connection, name) or Rater(0, name)


def all_raters(connection: Connection) -> list[Rater]:
    """Return all raters, in the order they were added."""
    return [Rater(row.id, row.name) for row in connection.execute(select(raters).order_by(raters.c.id))]


def new_secret(connection: Connection, rater: Rater, kind: SecretKind, *, guest: bool | None = None) -> str:
    """Return a new 192-bit secret for a rater, and store its sha256.

    With a secret of the kind "invitation" the rater signs in; one of the kind "session" keeps the rater signed in.
    `guest` marks a session that was begun by typing a name, without an invitation.
    """
    secret = random_secrets.token_urlsafe(24)
    row = {"digest": _digest(secret), "rater": rater.id, "kind": kind, "added": now_utc(), "guest": guest}
    connection.execute(insert(secrets).values(row))
    return secret


def rater_of_invitation(connection: Connection, token: str) -> Rater | None:
    """Return the rater whom the invitation's secret signs in; None if the secret is unknown."""
    return _bearer(connection, token, secrets.c.kind == "invitation")


def rater_of_session(connection: Connection, secret: str, *, guests: bool, now: float) -> Rater | None:
    """Return the rater whom a session's secret belongs to.

    None if the secret is unknown or older than 30 days, or if `guests` is False and the session was begun without an
    invitation. `now` is in Unix seconds.
    """
    since = datetime.fromtimestamp(now - _LASTS, UTC).isoformat(timespec="milliseconds")
    conditions = [secrets.c.kind == "session", secrets.c.added > since]
    return _bearer(connection, secret, *conditions, *([] if guests else [secrets.c.guest.is_(False)]))


def end_session(connection: Connection, secret: str) -> None:
    """Sign a rater out: delete the session with this secret."""
    connection.execute(delete(secrets).where(secrets.c.digest == _digest(secret), secrets.c.kind == "session"))


def _bearer(connection: Connection, secret: str, *where: ColumnElement[bool]) -> Rater | None:
    query = select(raters).join(secrets).where(secrets.c.digest == _digest(secret), *where)
    row = connection.execute(query).one_or_none()
    return None if row is None else Rater(row.id, row.name)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
