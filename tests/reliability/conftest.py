"""One process that has everything imported, for all tests here that kill what it forks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reliability.forking import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """See `forking`."""
    with Forks() as started:
        yield started
