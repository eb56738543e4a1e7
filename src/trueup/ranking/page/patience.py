"""How long a connection may keep the server waiting, and how many of one address may: else few can lock out all."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Patient(H11Protocol):
    """uvicorn's connection, closed where a request does not come to its end in time.

    The time runs from the first moment of waiting: a byte now and then does not buy more of it.
    """

    seconds: dict[str, float] = {"head": 10.0, "body": 30.0}  # noqa: RUF012 -- a test hurries it
    """How long a request's head may take, and its body after that."""
    most_waiting: int | None = None
    """Connections of one address that wait for the client; None: any number."""

    def __init__(self, *args: Any, **named: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*args, **named)
        self.waits: Literal["head", "body"] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] -- as uvicorn's
        """A visitor is there; one too many of an address is sent away."""
        super().connection_made(transport)
        self._watch()
        if self.most_waiting is not None and self._of_this_address() > self.most_waiting:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """More of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is out: the next request may come."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The visitor is gone."""
        self._set(None)
        super().connection_lost(exc)

    def _watch(self) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing():
            self._set(None)
        elif self.conn.their_state is h11.SEND_BODY:
            self._set("body")
        else:
            self._set("head" if answered and self.conn.their_state is h11.IDLE else None)

    def _set(self, waits: Literal["head", "body"] | None) -> None:
        if waits == self.waits:
            return
        self.waits = waits
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self.loop.call_later(self.seconds[waits], self.transport.abort) if waits else None

    def _of_this_address(self) -> int:
        host = self.client and self.client[0]
        return sum(
            isinstance(one, Patient) and one.waits is not None and (one.client and one.client[0]) == host
            for one in self.connections
        )


class Guarded(Patient):
    """For a page that a network can reach."""

    most_waiting = 100
