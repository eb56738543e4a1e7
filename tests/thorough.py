"""How many examples a property is tried on: some in `make test`, all in `make test-slow`."""

from __future__ import annotations

import os

from hypothesis import settings

THOROUGH = bool(os.environ.get("TRUEUP_THOROUGH"))


def trials(most: int = 100, **options: object) -> settings:
    """Settings for `most` examples, of which `make test` tries a quarter (ten at least)."""
    return settings(**{"deadline": None, "max_examples": most if THOROUGH else min(most, max(10, most // 4))} | options)
