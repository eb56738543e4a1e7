"""The page people rank on: a small server, and what a rater's browser gets. No model is ever named to a rater.

serve      binds a port, serves until a signal, stops cleanly
app        the routes, each a few lines over the store
access     who may come in: names or links, cookies, the Host and the Origin of a request
limits     what holds for every request and answer: sizes, headers, errors as one sentence
wire       what the page sends and gets, checked by pydantic
markdown   answers as HTML that can do nothing, in bounded time
invisible  characters that nobody sees, as marks that everybody sees
"""

from __future__ import annotations

from trueup.ranking.page.access import Access
from trueup.ranking.page.app import make_app
from trueup.ranking.page.serve import serve

__all__ = ["Access", "make_app", "serve"]
