"""The page's server: bind a port, serve until a signal, stop cleanly."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from dataclasses import replace

import uvicorn

from trueup.data.votes.store import Store
from trueup.errors import ConfigError
from trueup.ranking.page.access import Access
from trueup.ranking.page.app import make_app
from trueup.ranking.page.desk import PageWriter
from trueup.system.interrupt import InterruptGuard

_STOPPING = "stopping; press Ctrl-C again to quit at once"
_GRACE = 1  # seconds for requests that are being answered
_MOST_HEAD = 16 * 1024  # bytes of a request's line and headers
_IDLE = 5  # seconds that a connection may stay open between two requests
_CONNECTIONS = 1_000  # at once; further requests are answered with 503
_PORTS = 50  # ports to try for a free one to propose


def serve(
    store: Store,
    ahead: PageWriter | None,
    access: Access,
    *,
    say: Callable[[str], None],
    ready: Callable[[Access], None] = lambda _access: None,
    stop: threading.Event | None = None,
) -> int:
    """Serve the page until SIGINT, SIGTERM or `stop`. A second Ctrl-C raises Quit at once.

    Args:
        store: the store to rank; it stays open.
        ahead: the process that writes answers, started and stopped here; None if no model does.
        access: the page's address, and the rules of access.
        say: shows a line to the person who started the server.
        ready: called once the port is bound, with `access` and the real port in place of 0.
        stop: an event that ends the serving, for another thread.

    Returns:
        0, after a clean end.

    Raises:
        ConfigError: the port is taken, or the host is not one of this machine.
    """
    bound = _bind(access)
    try:
        access = replace(access, port=bound.getsockname()[1])
        with InterruptGuard(lambda _line: say(_STOPPING)) as guard:
            server = _Server(
                _config(make_app(store, ahead=ahead, access=access, report=say)),
                lambda: guard.requested or (stop is not None and stop.is_set()),
            )
            try:
                if ahead is not None:
                    ahead.start()
                ready(access)
                server.run(sockets=[bound])
            finally:
                if ahead is not None:
                    ahead.stop(_GRACE)
    finally:
        bound.close()
    return 0


class _Server(uvicorn.Server):
    """uvicorn's server, stopped once the function `ends` returns True; the caller handles signals."""

    def __init__(self, config: uvicorn.Config, ends: Callable[[], bool]) -> None:
        super().__init__(config)
        self._ends = ends

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve without uvicorn's own signal handlers."""
        await self._serve(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Return True to end the server. uvicorn calls this ten times a second."""
        return self._ends() or await super().on_tick(counter)


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType] -- a FastAPI is one
        http="h11",  # has a limit on the size of a head; httptools has none
        h11_max_incomplete_event_size=_MOST_HEAD,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        timeout_keep_alive=_IDLE,
        limit_concurrency=_CONNECTIONS,
    )


def _bind(access: Access) -> socket.socket:
    """Return a socket that listens on the host and port of `access`.

    Raises:
        ConfigError: the port is taken or needs more rights, or the host is not one of this machine.
    """
    try:
        return _listen(access.host, access.port)
    except PermissionError as error:
        raise ConfigError(f"--port {access.port}: this port needs more rights; use one from 1024 to 65535") from error
    except socket.gaierror as error:
        raise ConfigError(f"--host {access.host}: no address of that name; use one of this machine") from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(f"--host {access.host}: not an address of this machine ({error.strerror})") from error
        raise ConfigError(f"--port {access.port}: taken by another program; {_proposal(access)}") from error


def _proposal(access: Access) -> str:
    for port in range(access.port + 1, min(access.port + _PORTS, 65536)):
        try:
            _listen(access.host, port).close()
        except OSError:
            continue
        return f"--port {port} is free"
    return "--port 0 takes any free one"


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=256)
