"""Routes of the ranking page's app. FastAPI runs these plain functions in threads, so they may block."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import MOST_EDIT, MOST_NAME, MOST_NOTE, REASONS, Rater
from trueup.ranking.page.access import Access, JoinGuard, csrf_token, same_secret
from trueup.ranking.page.desk import PageWriter, RankingService
from trueup.ranking.page.limits import MOST_BODY, Limits, Refused
from trueup.ranking.page.wire import MOST_TOKEN, JoinRequest, LinkRequest, UndoRequest, VoteRequest

FILES = {"rank.css": "text/css", "rank.js": "text/javascript", "outbox.js": "text/javascript",
          "show.js": "text/javascript", "join.js": "text/javascript"}  # fmt: skip
_A_MONTH = 30 * 24 * 3600
# The results are a page of their own with its style inside; nothing in it runs, and nothing is loaded.
_RESULTS_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def make_app(
    store: Store, *, ahead: PageWriter | None = None, access: Access, report: Callable[[str], None] = lambda _line: None
) -> FastAPI:
    """Return the FastAPI app that serves the ranking page.

    Args:
        store: holds the prompts, pairs and votes.
        ahead: the process that writes answers, if models do.
        access: the page's address, and the rules of access.
        report: receives a line on an error of the server itself.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, title="trueup rank")
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MOST_BODY)
    app.add_middleware(Limits, access=access, report=report)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _not_there)
    visitors = _Visitors(store, access)
    _pages(app, visitors)
    _calls(app, visitors, RankingService(store, ahead))
    for name, kind in FILES.items():
        app.add_api_route(f"/{name}", _file(name, kind), methods=["GET"])
    app.add_api_route("/favicon.ico", lambda: Response(status_code=204), methods=["GET"])
    return app


class _Visitors:
    """Sign-in of visitors: finds a request's rater by its session cookie, checks writes, signs raters in and out."""

    def __init__(self, store: Store, access: Access) -> None:
        self.store, self.access, self.door = store, access, JoinGuard()
        # A cookie name for each store, as browsers share cookies between the ports of a host.
        self.name = f"trueup_rank_{hashlib.sha256(os.fsencode(store.path.resolve())).hexdigest()[:8]}"

    def session(self, request: Request) -> str:
        return request.cookies.get(self.name, "")

    def rater(self, request: Request) -> Rater | None:
        session = self.session(request)
        return self.store.rater_of_session(session, guests=not self.access.token_needed) if session else None

    def reader(self, request: Request) -> Rater:
        """Return the rater who is signed in, for a request that only reads.

        Raises:
            Refused: the visitor is not signed in.
        """
        if (rater := self.rater(request)) is None:
            raise Refused(401, "you are not signed in here, or no longer: open the page again")
        return rater

    def writer(self, request: Request) -> Rater:
        """Return the rater who is signed in, for a request that changes something and must come from our own page.

        Raises:
            Refused: the visitor is not signed in, or another page sent the request.
        """
        self.from_our_page(request, csrf_token(self.session(request)))
        return self.reader(request)

    def from_our_page(self, request: Request, token: str) -> None:
        """Check by its Origin header and CSRF token that our own page sent a request. Raises Refused if it did not."""
        origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
        if not self.access.same_origin(origin, host):
            raise Refused(403, "this did not come from the page itself")
        if not same_secret(request.headers.get("x-csrf-token", ""), token):
            raise Refused(403, "this page is from before the server or you changed: reload it")

    def by_token(self, request: Request, token: str) -> Rater | None:
        """Return the rater whose invitation link holds `token`, or None.

        A valid token always works: nobody finds one by trying.

        Raises:
            Refused: too many invalid tokens came from this address.
        """
        rater = self.store.rater_of(token) if 0 < len(token) <= MOST_TOKEN else None
        visitor = request.client.host if request.client else ""
        if rater is None and self.door.is_blocked(visitor):
            raise Refused(429, "too many links that do not work: wait a minute")
        if rater is None:
            self.door.record_failure(visitor)
        return rater

    def is_another(self, request: Request, rater: Rater) -> bool:
        """Return True if the visitor is already signed in as another rater than `rater`.

        After a click on another site the browser sends the lax cookie, not the strict one, so the lax one is looked at
        too.
        """
        if self.session(request):
            return self.rater(request) not in (None, rater)
        return request.cookies.get(f"{self.name}_who", str(rater.id)) != str(rater.id)

    def welcome(self, request: Request, response: Response, rater: Rater, *, guest: bool = False) -> None:
        """Sign a rater in by setting session cookies; another rater who is signed in in this browser is signed out."""
        if (before := self.rater(request)) == rater:
            return  # already signed in
        if before is not None:
            self._end(request, before)
        secure = self.access.is_secure(request.headers.get("origin", ""), request.headers.get("host", ""))
        session = self.store.session(rater, guest=guest)
        common = {"max_age": _A_MONTH, "path": "/", "httponly": True, "secure": secure}
        response.set_cookie(self.name, session, samesite="strict", **common)
        response.set_cookie(f"{self.name}_who", str(rater.id), samesite="lax", **common)

    def farewell(self, request: Request, response: Response, rater: Rater) -> None:
        """Sign a rater out. The session ends in the store too, so its cookie is worth nothing to whoever has it."""
        self._end(request, rater)
        for name in (self.name, f"{self.name}_who"):
            response.delete_cookie(name, httponly=True, samesite="strict", path="/")

    def _end(self, request: Request, rater: Rater) -> None:
        self.store.release(rater)
        self.store.end_session(self.session(request))


def _pages(app: FastAPI, visitors: _Visitors) -> None:
    access = visitors.access

    @app.get("/")
    def home(request: Request) -> HTMLResponse:
        rater = visitors.rater(request)
        if rater is None:
            return HTMLResponse(_join_page(visitors))
        values = {
            "rater": rater,
            "csrf": csrf_token(visitors.session(request)),
            "shelf": f"{visitors.name}_{rater.id}",
            "results": access.shows_results(rater),
            "reasons": REASONS,
            "most_note": MOST_NOTE,
            "most_edit": MOST_EDIT,
        }
        return HTMLResponse(_template("rank.html.j2", **values))

    @app.get("/join")
    def join_by_link(request: Request, token: str = "") -> HTMLResponse:
        """Sign in the rater of a link, and answer with a page that goes on to the ranking page by itself.

        A redirect would not do: after a click on another site the browser would not send the strict cookie with it.
        """
        rater = visitors.by_token(request, token)
        if rater is None:
            return HTMLResponse(_join_page(visitors, "This link does not work: ask for a new one."), status_code=403)
        if visitors.is_another(request, rater):
            values = {"rater": rater, "here": visitors.rater(request), "token": token, "form": visitors.door.form}
            return HTMLResponse(_template("other.html.j2", **values))
        response = HTMLResponse(_template("joined.html.j2", rater=rater))
        visitors.welcome(request, response, rater)
        return response

    @app.get("/results")
    def results(request: Request) -> HTMLResponse:
        if not access.shows_results(visitors.reader(request)):
            raise Refused(403, "only the owner of this page sees the results, as they would influence raters")
        return HTMLResponse(_results(visitors.store), headers={"Content-Security-Policy": _RESULTS_POLICY})


def _calls(app: FastAPI, visitors: _Visitors, desk: RankingService) -> None:
    reading, writing = Depends(visitors.reader), Depends(visitors.writer)

    @app.post("/api/join")
    def join_by_name(request: Request, joining: JoinRequest) -> Response:
        if visitors.access.token_needed:
            raise Refused(403, "a name is not enough here: open the link that you were given")
        visitors.from_our_page(request, visitors.door.form)
        if visitors.access.is_owner(joining.name):
            raise Refused(409, "this name is reserved for the owner of the page: choose another")
        response = Response(status_code=204)
        visitors.welcome(request, response, visitors.store.rater(joining.name.strip()), guest=True)
        return response

    @app.post("/api/join/link")
    def join_as_another(request: Request, following: LinkRequest) -> Response:
        visitors.from_our_page(request, visitors.door.form)
        rater = visitors.by_token(request, following.token)
        if rater is None:
            raise Refused(403, "this link does not work: ask for a new one")
        response = Response(status_code=204)
        visitors.welcome(request, response, rater)
        return response

    @app.post("/api/leave")
    def leave(request: Request, rater: Rater = writing) -> Response:
        response = Response(status_code=204)
        visitors.farewell(request, response, rater)
        return response

    @app.get("/api/state")
    def state(rater: Rater = reading) -> JSONResponse:
        return JSONResponse(desk.state(rater))

    @app.post("/api/keep")
    def keep(rater: Rater = writing) -> Response:
        visitors.store.next(rater)  # renews the rater's lease; nothing is rendered or sent
        return Response(status_code=204)

    @app.get("/api/progress")
    def progress(rater: Rater = reading) -> JSONResponse:
        return JSONResponse(desk.progress(rater))

    @app.post("/api/vote")
    def vote(voting: VoteRequest, rater: Rater = writing) -> JSONResponse:
        return JSONResponse(desk.vote(rater, voting))

    @app.post("/api/undo")
    def undo(undoing: UndoRequest, rater: Rater = writing) -> JSONResponse:
        return JSONResponse(desk.undo(rater, undoing))


def _results(store: Store) -> str:
    from trueup.ranking import results

    settings, event = store.settings, store.last_event()
    votes = store.votes(event)
    found = results.view(store.pairs(), votes, settings=settings, seed=settings.seed, event=event)
    return results.page(found, back="/")


def _join_page(visitors: _Visitors, problem: str = "") -> str:
    return _template(
        "join.html.j2",
        by_name=not visitors.access.token_needed,
        form=visitors.door.form,
        most_name=MOST_NAME,
        problem=problem,
    )


def _file(name: str, kind: str) -> Callable[[], Response]:
    return lambda: Response(_text(name), media_type=kind)


@cache
def _text(name: str) -> str:
    return files("trueup.ranking.page").joinpath(name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("trueup.ranking.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(**values)


def _not_valid(_request: Request, error: Exception) -> Response:
    """Return status 422 and the first problem of an invalid request, without quoting the request's content."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    return JSONResponse({"error": f"{place or 'request'}: {first['msg']}".replace("\n", " ")[:200]}, status_code=422)


def _not_there(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail).lower()}, status_code=error.status_code, headers=error.headers)
