"""The page people rank on: a small server, and what a rater's browser gets. No model is ever named to a rater.

serve      binds a port, serves until a signal, stops cleanly
app        the routes, each a few lines over the store
desk       what lies before a rater, and what becomes of a vote
remaining  how many pairs a rater has left, without telling which are checks
access     who may come in: names or links, cookies, the Host and the Origin of a request
limits     what holds for every request and answer: sizes, headers, errors as one sentence
wire       what the page sends and gets, checked by pydantic
markdown   answers as HTML that can do nothing, in bounded time
invisible  characters that nobody sees, as marks that everybody sees
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trueup.errors import MissingExtraError

if TYPE_CHECKING:
    from trueup.ranking.page.access import Access
    from trueup.ranking.page.app import make_app
    from trueup.ranking.page.serve import serve

__all__ = ["Access", "make_app", "serve"]

_HOMES = {"Access": "access", "make_app": "app", "serve": "serve"}
_EXTRA = ("fastapi", "starlette", "uvicorn", "markdown_it", "pygments", "sqlalchemy")


def __getattr__(name: str) -> Any:
    """What is asked for, imported then: the server is an extra."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise MissingExtraError("the page to rank on needs the extra rank: pip install 'trueup[rank]'") from error
    globals()[name] = found  # also where a module has the same name
    return found
