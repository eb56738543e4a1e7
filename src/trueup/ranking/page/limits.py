"""What holds for every request: the Host it names, its size, the headers of the answer, errors as one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trueup.data.votes.header import StoreError
from trueup.errors import DataError
from trueup.ranking.page.access import Access

MOST_BODY = 512 * 1024
"""Bytes of a request at most: an edited answer of MOST_EDIT characters fits, in any script."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):  # noqa: N818 -- an answer, not a fault
    """A request is answered with a status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        """The status, and the sentence for a person."""
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Limits:
    """The outermost layer of the app.

    Args:
        app: what it stands around.
        access: whose hosts are known.
        report: told of an error that no visitor can mend, in one line; the page tries again then.
    """

    def __init__(self, app: ASGIApp, access: Access, report: Callable[[str], None]) -> None:
        """Keep them."""
        self.app, self.access, self.report = app, access, report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._pass_on(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 -- nobody is shown a traceback
            refused = self._in_words(error)
            if not started:
                await _say(refused, answer)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.access.knows_host(Headers(scope=scope).get("host", "")):
            raise Refused(421, "this page is not served under that host name")
        await self.app(scope, receive, send)

    def _in_words(self, error: Exception) -> Refused:
        if isinstance(error, Refused):
            return error
        sentence = "; ".join(line.strip() for line in str(error).splitlines()).replace("; fix: ", ": ")
        if isinstance(error, DataError) and not isinstance(error, StoreError):
            return Refused(409, sentence)
        self.report(sentence if isinstance(error, DataError) else f"the page met {type(error).__name__}: {sentence}")
        return Refused(503, "the server cannot do this just now; who started it is told why")


async def _say(refused: Refused, send: Send) -> None:
    body = json.dumps({"error": refused.sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
