"""Send chats to a model behind an OpenAI-compatible endpoint, and return what is parsed from its replies.

It speaks HTTP by the standard library: one kind of request needs no client of its own as a dependency. Redirects are
not followed, because they would carry the key to another host. The key is read from the environment with each request
and kept nowhere.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from trueup.errors import ConfigError, TrueupError
from trueup.system.text import clean

T = TypeVar("T")
Chat = list[dict[str, str]]
"""Messages as the endpoint takes them: role and content."""

LARGEST_REPLY = 4_000_000
"""Bytes read of a reply: a verdict takes a few hundred, and thinking aloud some thousands."""
PATIENCE = 5
"""Times the timeout that a whole reply may take: byte by byte, none of them late, it could come for years."""
LONGEST_WAIT = 30.0
"""Seconds between two tries, at most, whatever the endpoint asks for."""


@dataclass(slots=True, repr=False)
class Endpoint:
    """The address of a chat model, and how patiently to ask it; temperature 0.

    Args:
        url: up to and with the version, "https://api.openai.com/v1" or "http://localhost:8000/v1".
        model: the model's name at the endpoint.
        api_key_env: the environment variable with the key. Where it is not set no key is sent, as local servers want
            it. No other variable is looked at: a key for one host must not go to another by default.
        timeout: seconds without a byte from the endpoint after which a try has failed.
        retries: tries after the first, for network errors, for statuses 408, 409, 429 and 5xx, and for no verdict.
        concurrency: requests at a time.

    Raises:
        ConfigError: the url is not http(s), or holds a password; a number is out of range.
    """

    url: str
    model: str
    api_key_env: str = "TRUEUP_JUDGE_KEY"
    timeout: float = 60.0
    retries: int = 3
    concurrency: int = 8
    pause: float = 0.5
    """Seconds before the second try; it doubles with each further one, unless the endpoint says how long."""

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise ConfigError("judge url cannot be read; fix: url=https://HOST/v1") from None
        if not usable:
            raise ConfigError(f"judge url {_shown(self.url)!r} is not http(s)://HOST/...; fix: url=https://HOST/v1")
        if parts.username is not None or parts.password is not None:
            raise ConfigError(f"judge url {_shown(self.url)!r} holds a user or password; fix: set {self.api_key_env}")
        if not (self.timeout > 0 and self.retries >= 0 and self.concurrency >= 1):
            raise ConfigError(
                f"judge: timeout {self.timeout}, retries {self.retries}, concurrency {self.concurrency}; "
                "fix: timeout above 0, retries 0 or more, concurrency 1 or more"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_shown(self.url)!r}, {self.model!r})"

    def ask_all(self, chats: Sequence[Chat], read: Callable[[str], T | None]) -> list[T | None]:
        """Return the value read from the reply to each chat; None where no try gave a readable reply.

        Args:
            chats: messages of each question.
            read: returns the value found in a reply's text, None where there is none.

        Raises:
            TrueupError: the endpoint cannot be reached or refuses; names the url, the status and the fix.
        """
        stop = threading.Event()
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(self._ask, chat, read, stop) for chat in chats]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # What is still waiting, for its turn or for another try, would only fail the same way.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, chat: Chat, read: Callable[[str], T | None], stop: threading.Event) -> T | None:
        body = json.dumps({"model": self.model, "temperature": 0, "messages": chat}).encode()
        for attempt in range(self.retries + 1):
            last = attempt == self.retries or stop.is_set()
            try:
                value = read(self._post(body))
            except _Failure as failure:
                if last or not failure.again:
                    raise TrueupError(failure.message) from None
                stop.wait(min(LONGEST_WAIT, failure.after or self.pause * 2**attempt))
                continue
            if value is not None or last:
                return value
        return None

    def _post(self, body: bytes) -> str:
        """Return the reply's text, empty where the reply has none."""
        with _cut_after(PATIENCE * self.timeout):
            return self._send(body)

    def _send(self, body: bytes) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "trueup"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        address = _address(self.url)
        request = urllib.request.Request(address, data=body, headers=headers, method="POST")  # noqa: S310 - the scheme is checked
        try:
            with _OPENER.open(request, timeout=self.timeout) as reply:
                return _content(reply.read(LARGEST_REPLY))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error, key) from None
        except (OSError, http.client.HTTPException) as error:
            reason = clean(str(getattr(error, "reason", error)) or type(error).__name__, one_line=True)
            fix = f"fix: is it running, and is a timeout of {self.timeout:g} s enough?"
            message = f"judge {_shown(self.url)}: no answer ({_without(reason, key)}); {fix}"
            raise _Failure(message, again=True) from None
        except ValueError:
            # Its message is not passed on: it quotes the header that could not be sent, with the key in it.
            fix = f"fix: look for characters that are not ASCII in the url and in {self.api_key_env}"
            raise _Failure(f"judge {_shown(self.url)}: the request cannot be sent; {fix}") from None

    def _refused(self, error: urllib.error.HTTPError, key: str) -> _Failure:
        message = f"judge {_shown(self.url)}: HTTP status {error.code}"
        if error.code in {401, 403}:
            state = "is not accepted" if key else "is not set"
            return _Failure(f"{message}; the key in {self.api_key_env} {state}; fix: export {self.api_key_env}=...")
        try:
            detail = clean(error.read(2000).decode("utf-8", "replace"), one_line=True)
        except (OSError, http.client.HTTPException):
            detail = ""
        message = f"{message}: {_without(detail, key)[:200]}" if detail else message
        if error.code in {408, 409, 429} or error.code >= 500:
            after = error.headers.get("Retry-After", "")
            fix = "fix: lower concurrency or try later"
            return _Failure(f"{message}; {fix}", again=True, after=float(after) if after.isdecimal() else None)
        return _Failure(f"{message}; fix: check url and model ({self.model}); url ends before /chat/completions")


class _Failure(Exception):  # noqa: N818 - it never leaves this module
    """A failed request: the message, whether to try again, and after how many seconds."""

    def __init__(self, message: str, *, again: bool = False, after: float | None = None) -> None:
        super().__init__(message)
        self.message, self.again, self.after = message, again, after


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return None, which makes a redirect an error with its status."""


_request = threading.local()


class _TrackedSocket:
    """A connection that records its socket, so that another thread can close it during a read."""

    sock: Any

    def connect(self) -> None:
        super().connect()  # pyright: ignore[reportAttributeAccessIssue] - of the connection that it is mixed into
        _request.sockets.append(self.sock)


class _Plain(_TrackedSocket, http.client.HTTPConnection): ...


class _Secure(_TrackedSocket, http.client.HTTPSConnection): ...


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Plain, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Secure, req)


@contextmanager
def _cut_after(seconds: float) -> Iterator[None]:
    """Close the connection of this thread's request after `seconds`."""
    sockets: list[socket.socket] = []
    _request.sockets = sockets

    def cut() -> None:
        for connection in sockets:
            with suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_OPENER = urllib.request.build_opener(_NoRedirect, _Http, _Https)


def _content(reply: bytes) -> str:
    try:
        content = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return content if isinstance(content, str) else ""


def _address(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _shown(url: str) -> str:
    """Return the url without what may be secret in it: user, password and query."""
    parts = urllib.parse.urlsplit(url)
    return clean(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}", one_line=True)


def _without(text: str, key: str) -> str:
    return text.replace(key, "***") if key else text
