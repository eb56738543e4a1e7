"""Who may come in. On loopback a visitor gives a name; beyond it everybody needs the link of a rater.

A request is believed when it names this machine in Host (a page elsewhere that made its own name point here does not),
and a write when it comes from our own page: the same Origin, and a token that only that page was given.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import socket
import threading
import time
import unicodedata
from collections import deque
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from trueup.data.votes.vote_types import Rater
from trueup.errors import ConfigError

_NAME = re.compile(r"(https?://)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Access:
    """Where the page is served, and to whom.

    Attributes:
        host: the address to bind.
        port: the port; 0 for any free one.
        token_needed: whether a visitor needs a rater's link; else a name will do.
        owner: the name of the rater who sees the results where links are needed; without, everybody sees them.
        names: more host names by which the page is reached (a tunnel's, a proxy's), `https://` before those that
            are reached so; links are of the first.

    Raises:
        ConfigError: a host beyond loopback, and no token needed; or no such port; or a name that is none.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token_needed: bool = False
    owner: str = ""
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Nobody opens the page to a network by mistake."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: a port is a number from 1 to 65535, or 0 for any free one")
        if not (self.token_needed or on_loopback(self.host)):
            raise ConfigError(f"--host {self.host}: beyond this machine the page needs tokens; leave --host out")
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise ConfigError(f"--name {name}: not a host name\n  fix: --name rank.example.org, or with https://")

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        if self.names:
            scheme, _, name = self.names[0].rpartition("://")
            return f"{scheme}://{name}/" if scheme else f"http://{name}{'' if ':' in name else f':{self.port}'}/"
        host = socket.gethostname() if self.host in ("", "0.0.0.0", "::") else self.host  # noqa: S104 -- compared
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def link(self, token: str) -> str:
        """The link that makes a visitor the rater of that token."""
        return f"{self.address}join?token={token}"

    def shows_results(self, rater: Rater) -> bool:
        """Whether this rater may see the results."""
        return not self.token_needed or rater.name == self.owner

    def is_owner(self, name: str) -> bool:
        """Whether a name would pass for the owner's, who may see the results."""
        typed, own = (unicodedata.normalize("NFKC", one).strip().casefold() for one in (name, self.owner))
        return bool(own) and typed == own

    def knows_host(self, header: str) -> bool:
        """Whether a Host header names this machine. The port may be another one, as through `ssh -L`."""
        host = _host_of(header)
        if host == "localhost" or host in self._hosts():
            return True
        try:
            address = ip_address(host)
        except ValueError:
            own = socket.gethostname().lower()
            return not on_loopback(self.host) and host in (own, f"{own}.local")
        return address.is_loopback or not on_loopback(self.host)

    def same_origin(self, origin: str, host: str) -> bool:
        """Whether a write comes from a page of ours."""
        split = urlsplit(origin)
        if split.scheme not in ("http", "https"):
            return False
        return split.netloc.lower() == host.lower() or _host_of(split.netloc) in self._hosts()

    def is_secure(self, origin: str, host: str) -> bool:
        """Whether a request came to the visitor's end by https, as far as a server behind a proxy can know."""
        return origin.lower().startswith("https://") or _host_of(host) in self._hosts("https://")

    def _hosts(self, scheme: str = "") -> list[str]:
        return [_host_of(one.rpartition("://")[2]) for one in self.names if one.lower().startswith(scheme)]


def csrf_of(session: str) -> str:
    """The token that a session's page sends with every write: who has it was shown the page."""
    return hmac.new(session.encode(), b"trueup rank: writes", hashlib.sha256).hexdigest()


def equal(one: str, other: str) -> bool:
    """Whether two secrets are the same, in a time that tells nothing."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


@dataclass(slots=True)
class Door:
    """What the join page needs of this process: a token for its form, and patience with wrong links.

    Attributes:
        form: the token of a visitor's form.
        tries: failed tries that are allowed to one address within `window` seconds.
        window: seconds.
    """

    form: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    tries: int = 10
    window: float = 60.0
    _failed: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def closed(self, visitor: str) -> bool:
        """Whether this address has failed too often just now."""
        with self._lock:
            return len(self._recent(visitor)) >= self.tries

    def failed(self, visitor: str) -> None:
        """A wrong link came from this address."""
        with self._lock:
            if len(self._failed) >= 1_000:  # forget the oldest address rather than grow
                self._failed.pop(next(iter(self._failed)))
            self._failed.setdefault(visitor, deque(maxlen=self.tries)).append(time.monotonic())

    def _recent(self, visitor: str) -> deque[float]:
        times = self._failed.get(visitor, deque())
        while times and time.monotonic() - times[0] > self.window:
            times.popleft()
        return times


def _host_of(netloc: str) -> str:
    """`[::1]:8000` -> `::1`, `Name.:80` -> `name`."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def on_loopback(host: str) -> bool:
    """Whether an address is this machine's own, which no other can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
