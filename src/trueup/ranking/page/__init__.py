"""The page on which people rank: a small server and the files it serves. A rater never sees a model's name.

serve      binds a port, serves until a signal, stops cleanly
app        the routes
desk       a rater's screen, votes and progress
access     who may enter: names or links, sessions, the Host and the Origin of a request
limits     checks and headers of every request and response; errors as one sentence
wire       the JSON between page and server, checked by pydantic
markdown   answers as harmless HTML, in bounded time
invisible  invisible characters as visible marks
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trueup.errors import MissingExtraError
from trueup.system.commandline import install_command

if TYPE_CHECKING:
    from trueup.ranking.page.access import Access
    from trueup.ranking.page.app import make_app
    from trueup.ranking.page.serve import serve

__all__ = ["Access", "make_app", "serve"]

_HOMES = {"Access": "access", "make_app": "app", "serve": "serve"}
_EXTRA = ("fastapi", "starlette", "uvicorn", "markdown_it", "pygments", "sqlalchemy")


def __getattr__(name: str) -> Any:
    """Return a name of this package, imported on first use: the server is an optional extra."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise MissingExtraError(f"the page to rank on needs the extra rank: {install_command('rank')}") from error
    globals()[name] = value  # `serve` is also a submodule, which would hide the function
    return value
