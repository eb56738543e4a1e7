"""When something was said, in any way that files have."""

from __future__ import annotations

from datetime import UTC, datetime

from trueup.data.sources.records import Record

_MILLISECONDS = 1e11  # as seconds, the year 5138; as milliseconds, 1973


def iso(record: Record, value: object) -> str:
    """ISO 8601 in UTC of Unix seconds or milliseconds, or of a written time (without a zone: UTC); "" of nothing.

    Raises:
        DataError: it is no time.
    """
    if value in (None, ""):
        return ""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            told = datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, UTC)
        else:
            told = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        fix = "write it like 2026-01-31T12:00:00Z, or in seconds since 1970"
        raise record.fail("the time cannot be read", fix, str(value)) from None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="milliseconds")
