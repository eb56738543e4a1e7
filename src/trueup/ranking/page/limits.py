"""Outermost layer of the ranking page's app: checks the Host of requests, adds headers, puts errors into words."""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trueup.data.votes.header import StoreError
from trueup.errors import DataError
from trueup.ranking.page.access import Access

MOST_BODY = 512 * 1024
"""Largest request body in bytes: an edited answer of MOST_EDIT characters fits in any script."""

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


class Refused(Exception):  # noqa: N818 -- a response, not a fault
    """Exception that answers a request with an HTTP error status and one sentence for the visitor."""

    def __init__(self, status: int, sentence: str) -> None:
        """Keep the status, and the sentence for a person."""
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Limits:
    """ASGI middleware: refuses unknown Host headers, adds security headers, answers errors with one JSON sentence.

    Args:
        app: the app inside.
        access: knows the page's host names.
        report: receives a line on an error that no visitor can fix; the page then tries again.
    """

    def __init__(self, app: ASGIApp, access: Access, report: Callable[[str], None]) -> None:
        """Keep the app inside, the rules of access and the function that reports errors."""
        self.app, self.access, self.report = app, access, report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one HTTP request on to the app; an error is answered as {"error": sentence}, without a traceback."""
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
        except Exception as error:  # noqa: BLE001 -- no visitor gets a traceback
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
        self.report(
            sentence if isinstance(error, DataError) else f"error of the page: {type(error).__name__}: {sentence}"
        )
        return Refused(503, "the server cannot do this now; the reason is in its terminal")


async def _say(refused: Refused, send: Send) -> None:
    body = json.dumps({"error": refused.sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
