"""Servers that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ranking.page.serving import Served


@pytest.fixture
def start() -> Iterator[Callable[..., Served]]:
    """Starts a server: `start(store, **access)`."""
    started: list[Served] = []

    def begin(store: Path, **access: Any) -> Served:
        started.append(Served(store, **access))
        return started[-1]

    yield begin
    for server in started:
        server.kill()
