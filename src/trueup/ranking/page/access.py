"""Access to the page: on loopback a visitor gives a name; beyond it every visitor needs a rater's link.

A request must name this machine in Host (which stops DNS rebinding). A write must come from our own page: it has the
same Origin and the CSRF token of the session.
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
    """Address of the ranking page, and the rules on who may open it and who may see the results.

    Attributes:
        host: the network address to listen on.
        port: the port to listen on; 0 for any free one.
        token_needed: True if a visitor needs a rater's link; else a name is enough.
        owner: the rater who sees the results if links are needed; without links everybody sees them.
        names: further host names of the page (of a tunnel or proxy), with `https://` if they use TLS; links use the
            first.

    Raises:
        ConfigError: a host beyond loopback without tokens, an impossible port, or a name that is no host name.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token_needed: bool = False
    owner: str = ""
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values, so that nobody opens the page to a network by mistake."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: a port is a number from 1 to 65535, or 0 for any free one")
        if not (self.token_needed or on_loopback(self.host)):
            raise ConfigError(f"--host {self.host}: beyond this machine the page needs tokens; leave --host out")
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise ConfigError(f"--name {name}: not a host name\n  fix: --name rank.example.org, or with https://")

    @property
    def address(self) -> str:
        """The address of the page for a browser."""
        if self.names:
            scheme, _, name = self.names[0].rpartition("://")
            return f"{scheme}://{name}/" if scheme else f"http://{name}{'' if ':' in name else f':{self.port}'}/"
        host = socket.gethostname() if self.host in ("", "0.0.0.0", "::") else self.host  # noqa: S104 -- compared
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def link(self, token: str) -> str:
        """Return the invitation link with this secret token: it signs a visitor in as the token's rater."""
        return f"{self.address}join?token={token}"

    def shows_results(self, rater: Rater) -> bool:
        """Return True if this rater may see the results: the owner, or anybody if the page needs no links."""
        return not self.token_needed or rater.name == self.owner

    def is_owner(self, name: str) -> bool:
        """Return True if a typed name equals the owner's but for case, spaces or Unicode form: nobody may take it."""
        typed, owner = (unicodedata.normalize("NFKC", text).strip().casefold() for text in (name, self.owner))
        return bool(owner) and typed == owner

    def knows_host(self, header: str) -> bool:
        """Return True if a Host header names this machine. The port may differ, as through `ssh -L`."""
        host = _host_of(header)
        if host == "localhost" or host in self._hosts():
            return True
        try:
            address = ip_address(host)
        except ValueError:
            machine = socket.gethostname().lower()
            return not on_loopback(self.host) and host in (machine, f"{machine}.local")
        return address.is_loopback or not on_loopback(self.host)

    def same_origin(self, origin: str, host: str) -> bool:
        """Return True if a request's Origin header names this page: the host in its Host header, or one of `names`."""
        split = urlsplit(origin)
        if split.scheme not in ("http", "https"):
            return False
        return split.netloc.lower() == host.lower() or _host_of(split.netloc) in self._hosts()

    def is_secure(self, origin: str, host: str) -> bool:
        """Return True if the visitor uses https, as far as a server behind a proxy can know."""
        return origin.lower().startswith("https://") or _host_of(host) in self._hosts("https://")

    def _hosts(self, scheme: str = "") -> list[str]:
        return [_host_of(name.rpartition("://")[2]) for name in self.names if name.lower().startswith(scheme)]


def csrf_token(session: str) -> str:
    """Return the CSRF token of a session: its page sends it with every write, and no other site's page can know it."""
    return hmac.new(session.encode(), b"trueup rank: writes", hashlib.sha256).hexdigest()


def same_secret(left: str, right: str) -> bool:
    """Return True if two secrets are equal, in constant time."""
    return hmac.compare_digest(left.encode("utf-8", "replace"), right.encode("utf-8", "replace"))


@dataclass(slots=True)
class JoinGuard:
    """Protection of the page on which visitors sign in: a token for its form, and a limit on wrong links.

    Attributes:
        form: the CSRF token in the form of the sign-in page.
        tries: wrong links that one network address may try within `window` seconds.
        window: seconds after which a wrong link no longer counts.
    """

    form: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    tries: int = 10
    window: float = 60.0
    _failed: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_blocked(self, visitor: str) -> bool:
        """Return True if the network address `visitor` has tried too many wrong links within `window` seconds."""
        with self._lock:
            return len(self._recent(visitor)) >= self.tries

    def record_failure(self, visitor: str) -> None:
        """Count a wrong link that was tried from `visitor`, a network address."""
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
    """Return the host of a host and port: `[::1]:8000` gives `::1`, `Name.:80` gives `name`."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def on_loopback(host: str) -> bool:
    """Return True if an address is a loopback one, which no other machine can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
