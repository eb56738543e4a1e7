"""Ask a chat model behind an OpenAI-compatible HTTP endpoint: a model that judges, or one that is measured.

It uses the standard library's HTTP client, as a single kind of request needs no further dependency. Redirects are
not followed, because they would carry the API key to another host. The API key is read from the environment with each
request and kept nowhere.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, TypeGuard, TypeVar

from trueup.errors import ConfigError, TrueupError
from trueup.system.text import clean, excerpt

T = TypeVar("T")
Chat = list[dict[str, str]]
"""Messages as the endpoint takes them: role and content."""

LARGEST_REPLY = 4_000_000
"""Bytes read of a reply: a verdict takes a few hundred, and thinking aloud some thousands."""
PATIENCE = 5
"""Times the timeout that a whole reply may take: byte by byte, none of them late, it could come for years."""
LONGEST_WAIT = 30.0
"""Seconds between two tries, at most, whatever the endpoint asks for."""
OF_ONE_REQUEST = {400, 413, 422}
"""Statuses that may be about one request alone, such as a prompt that is longer than the model's context."""
GIVE_UP = 8
"""Questions in a row that found no reply after all their tries: the endpoint is then taken to be out of order."""


@dataclass(slots=True)
class Usage:
    """Counts of all that was sent to an endpoint and came back; they add up over calls.

    Attributes:
        questions: the chats to be answered.
        requests: HTTP requests sent; each try is one.
        failed: questions that found no reply: every try ended with a network error, a timeout or an error status.
        unread: questions whose replies held nothing that could be read, in every try.
        prompt_tokens, completion_tokens: as the endpoint counts them (`usage` in its replies).
        uncounted: replies that came without such counts.
        unread_example: the beginning of the first reply that could not be read.
        failure_example: the reason why the first question found no reply.
    """

    questions: int = 0
    requests: int = 0
    failed: int = 0
    unread: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    unread_example: str = ""
    failure_example: str = ""

    def as_dict(self) -> dict[str, int | str]:
        """Return the counts and the examples by name, for JSON."""
        return asdict(self)

    def __add__(self, other: Usage) -> Usage:
        """Return the counts of both together, with the first example of either kind."""
        mine, theirs = asdict(self), asdict(other)
        return Usage(**{
            name: mine[name] or theirs[name] if isinstance(mine[name], str) else mine[name] + theirs[name]
            for name in mine
        })  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reply:
    """The text of a model's message ("" where it has none), and why it ended: "stop", "length", or None if unsaid."""

    text: str
    finish: str | None = None
    is_message: bool = True
    """False where the response held no message at all."""


@dataclass(slots=True, repr=False)
class Endpoint:
    """The address of a chat model, with the timeout, the retries and the concurrency for asking it.

    Replies are sampled at temperature 0, unless a call's options say otherwise. `usage` counts what was sent and what
    came back.

    Args:
        url: up to and with the version, "https://api.openai.com/v1" or "http://localhost:8000/v1".
        model: the model's name at the endpoint.
        api_key_env: the environment variable that holds the API key. Where it is not set no key is sent, as local
            servers want it. No other variable is looked at: a key for one host must not go to another by default.
        timeout: seconds without a byte from the endpoint after which a try has failed.
        retries: tries after the first: for network errors, for statuses 408, 409, 429 and 5xx, and for replies that
            cannot be parsed.
        concurrency: requests that may run at the same time.
        pause: seconds before the second try; it doubles with each further one, unless the endpoint says how long.
        role: the use of the model, for messages: "judge" or "model".

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
    role: str = "judge"
    usage: Usage = field(default_factory=Usage, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _answered: int = field(default=0, init=False)
    _failures_in_a_row: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise ConfigError(f"{self.role} url cannot be read; fix: url=https://HOST/v1") from None
        if not usable:
            raise ConfigError(
                f"{self.role} url {_shown(self.url)!r} is not http(s)://HOST/...; fix: url=https://HOST/v1"
            )
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                f"{self.role} url {_shown(self.url)!r} holds a user or password; fix: set {self.api_key_env}"
            )
        if not (self.timeout > 0 and self.retries >= 0 and self.concurrency >= 1):
            raise ConfigError(
                f"{self.role}: timeout {self.timeout}, retries {self.retries}, concurrency {self.concurrency}; "
                "fix: timeout above 0, retries 0 or more, concurrency 1 or more"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_shown(self.url)!r}, {self.model!r})"

    def ask_all(self, chats: Sequence[Chat], read: Callable[[str], T | None]) -> list[T | None]:
        """Send each chat to the model and return the value parsed from each reply.

        A value is None where no reply could be read, or where none came although other questions were answered (a
        prompt that is too long, a timeout); `usage` counts both.

        Args:
            chats: for each request, its messages ({"role", "content"}).
            read: parses a reply's text; returns None where the text does not hold the wanted value.

        Raises:
            TrueupError: the endpoint cannot be reached, refuses, or has answered nothing, or 8 questions in a row found
                no reply; names the url, the status and the fix.
        """
        return self._all(chats, [lambda reply: read(reply.text)] * len(chats), {})

    def write_all(
        self, chats: Sequence[Chat], options: Mapping[str, Any], keep: Callable[[int, Reply], None]
    ) -> list[Reply | None]:
        """Send each chat to the model and return its messages; None where none came, as `usage` counts.

        Args:
            chats: for each request, its messages ({"role", "content"}).
            options: further keys of each request, such as {"temperature": 1.0, "max_tokens": 64}.
            keep: called with the index of a chat and the reply to it as soon as it is there, from several threads.

        Raises:
            TrueupError: as for `ask_all`.
        """

        def reader(index: int) -> Callable[[Reply], Reply | None]:
            def read(reply: Reply) -> Reply | None:
                if not reply.is_message:
                    return None
                keep(index, reply)
                return reply

            return read

        return self._all(chats, [reader(index) for index in range(len(chats))], options)

    def models(self) -> list[str]:
        """Return the names of the models that the endpoint lists; none where it has no such list.

        Raises:
            TrueupError: the endpoint cannot be reached, or refuses the key.
        """
        try:
            with _cut_after(PATIENCE * self.timeout):
                reply = self._send(None, "/models")
        except _Failure as failure:
            if failure.status in {404, 405}:
                return []
            raise TrueupError(failure.message) from None
        response: Any = None
        with suppress(ValueError, RecursionError):
            response = json.loads(reply)
        rows = response.get("data") if isinstance(response, dict) else None
        names = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return [name for name in names if isinstance(name, str)]

    def _all(
        self, chats: Sequence[Chat], reads: Sequence[Callable[[Reply], T | None]], options: Mapping[str, Any]
    ) -> list[T | None]:
        stop = threading.Event()
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [
                pool.submit(self._ask, chat, read, stop, options) for chat, read in zip(chats, reads, strict=True)
            ]
            try:
                values = [future.result() for future in futures]
            except BaseException:
                # What is still waiting, for its turn or for another try, would only fail the same way.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if chats and not self._answered:
            raise TrueupError(self.usage.failure_example)
        return values

    def _ask(
        self, chat: Chat, read: Callable[[Reply], T | None], stop: threading.Event, options: Mapping[str, Any]
    ) -> T | None:
        body = json.dumps({"model": self.model, "temperature": 0, **options, "messages": chat}).encode()
        reply = Reply("")
        if stop.is_set():
            return None
        with self._lock:
            self.usage.questions += 1
        for attempt in range(self.retries + 1):
            last = attempt == self.retries or stop.is_set()
            with self._lock:
                self.usage.requests += 1
            try:
                reply = self._post(body)
            except _Failure as failure:
                if failure.for_all:
                    raise TrueupError(failure.message) from None
                if last or not failure.again:
                    self._note_failure(failure.message)
                    return None
                stop.wait(min(LONGEST_WAIT, failure.after or self.pause * 2**attempt))
                continue
            with self._lock:
                self._answered, self._failures_in_a_row = self._answered + 1, 0
            value = read(reply)
            if value is not None:
                return value
            if last:
                break
        with self._lock:
            self.usage.unread += 1
            self.usage.unread_example = self.usage.unread_example or excerpt(_without(reply.text, self._key()), 80)
        return None

    def _note_failure(self, message: str) -> None:
        """Count a question that found no reply.

        Raises:
            TrueupError: nothing was answered so far in two questions, or 8 questions in a row found no reply.
        """
        with self._lock:
            self.usage.failed += 1
            self.usage.failure_example = self.usage.failure_example or message
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= (GIVE_UP if self._answered else 2):
                raise TrueupError(message)

    def _post(self, body: bytes) -> Reply:
        """Send a JSON request and return the model's message."""
        with _cut_after(PATIENCE * self.timeout):
            return self._read(self._send(body, "/chat/completions"))

    def _key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip()

    def _send(self, body: bytes | None, path: str) -> bytes:
        """Return the response to a JSON request, or to a GET request where there is no body."""
        key = self._key()
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "trueup"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        address, method = _address(self.url, path), "GET" if body is None else "POST"
        request = urllib.request.Request(address, data=body, headers=headers, method=method)  # noqa: S310 - the scheme is checked
        try:
            with _OPENER.open(request, timeout=self.timeout) as reply:
                return reply.read(LARGEST_REPLY)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error, key) from None
        except (OSError, http.client.HTTPException) as error:
            reason = clean(str(getattr(error, "reason", error)) or type(error).__name__, one_line=True)
            fix = f"fix: is it running, and is a timeout of {self.timeout:g} s enough?"
            message = f"{self.role} {_shown(self.url)}: no answer ({_without(reason, key)}); {fix}"
            raise _Failure(message, again=True) from None
        except ValueError:
            # Its message is not passed on: it quotes the header that could not be sent, with the key in it.
            fix = f"fix: look for characters that are not ASCII in the url and in {self.api_key_env}"
            raise _Failure(f"{self.role} {_shown(self.url)}: the request cannot be sent; {fix}", for_all=True) from None

    def _read(self, reply: bytes) -> Reply:
        """Return the model's message in a response; count the tokens used."""
        response: Any = None
        with suppress(ValueError, RecursionError):
            response = json.loads(reply)
        used = response.get("usage") if isinstance(response, dict) else None
        used = used if isinstance(used, dict) else {}
        sent, received = used.get("prompt_tokens"), used.get("completion_tokens")
        with self._lock:
            if _is_count(sent) and _is_count(received):
                self.usage.prompt_tokens += sent
                self.usage.completion_tokens += received
            else:
                self.usage.uncounted += 1
        try:
            choice = response["choices"][0]
            content, finish = choice["message"]["content"], choice.get("finish_reason")
        except (LookupError, TypeError, AttributeError):
            return Reply("", is_message=False)
        # A model that spends all its tokens on thinking has a message without content.
        return Reply(content if isinstance(content, str) else "", finish if isinstance(finish, str) else None)

    def _refused(self, error: urllib.error.HTTPError, key: str) -> _Failure:
        message = f"{self.role} {_shown(self.url)}: HTTP status {error.code}"
        if error.code in {401, 403}:
            state = "is not accepted" if key else "is not set"
            fix = f"fix: export {self.api_key_env}=..."
            text = f"{message}; the key in {self.api_key_env} {state}; {fix}"
            return _Failure(text, for_all=True, status=error.code)
        try:
            detail = clean(error.read(2000).decode("utf-8", "replace"), one_line=True)
        except (OSError, http.client.HTTPException):
            detail = ""
        message = f"{message}: {_without(detail, key)[:200]}" if detail else message
        if error.code in {408, 409, 429} or error.code >= 500:
            after = error.headers.get("Retry-After", "")
            fix = "fix: lower concurrency or try later"
            return _Failure(f"{message}; {fix}", again=True, after=float(after) if after.isdecimal() else None)
        fix = f"fix: check url and model ({self.model}); url ends before /chat/completions"
        return _Failure(f"{message}; {fix}", for_all=error.code not in OF_ONE_REQUEST, status=error.code)


class _Failure(Exception):  # noqa: N818 - it never leaves this module
    """A failed HTTP request, with the error message.

    `again`: another try may help, after `after` seconds. `for_all`: every request would fail like this one.
    """

    def __init__(
        self, message: str, *, again: bool = False, after: float | None = None, for_all: bool = False,
        status: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.message, self.again, self.after, self.for_all, self.status = message, again, after, for_all, status


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Refuse to follow a redirect: by returning None, the redirect becomes an HTTPError with its status."""


_request = threading.local()


class _TrackedSocket:
    """Mix-in for HTTP connections that records the socket, so that another thread's timer can close it."""

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
    """Return a context that ends a request made in it by this thread after `seconds`, by shutting its socket down."""
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


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < LARGEST_REPLY


def _address(url: str, path: str) -> str:
    parts = urllib.parse.urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/chat/completions") + path
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _shown(url: str) -> str:
    """Return the url for messages, without the parts that may be secret: user, password and query."""
    parts = urllib.parse.urlsplit(url)
    return clean(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}", one_line=True)


def _without(text: str, key: str) -> str:
    return text.replace(key, "***") if key else text
