"""Write the mask view (which tokens train) as one self-contained page: no script, no network, all data escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trueup.pages import html
from trueup.preflight.show import labels
from trueup.preflight.show.mask_view import Token, View
from trueup.system.files import atomic_write_text


@dataclass(frozen=True, slots=True)
class _Item:
    """A token on the page, or the tokens that form one character, with a tooltip and the mark that follows."""

    token: Token
    tooltip: str
    mark: str


def write_html(view: View, path: Path) -> None:
    """Write the mask view as an HTML page to `path`, as UTF-8."""
    style = html.resource("trueup.pages", "base.css") + html.resource("trueup.preflight.show", "page.css")
    environment = html.environment("trueup.preflight.show")
    page = html.render(environment, "page.html.j2", style=style, view=view, labels=labels, items=_items, mark=_mark)
    atomic_write_text(path, page)


def _mark(view: View, token: Token) -> str:
    """Return the mark after a token: SCORE where a reward model is read, END after a trained end token, or ""."""
    if view.method == "reward":
        return "SCORE" if token.trained else ""
    return "END" if token.end else ""


def _items(view: View, run: Sequence[Token]) -> list[_Item]:
    """Return the items of a run of tokens; tokens without text of their own belong to the character before them."""
    groups: list[list[Token]] = []
    for token in run:
        if token.text or not groups:
            groups.append([])
        groups[-1].append(token)
    return [_Item(group[0], _tooltip(view, group), _mark(view, group[-1])) for group in groups]


def _tooltip(view: View, group: Sequence[Token]) -> str:
    first, last = group[0], group[-1]
    trained = "score read here" if view.method == "reward" else "trained"
    use = trained if first.trained else "only read"
    if len(group) == 1:
        return f"position {first.position}, id {first.id}, {use}"
    ids = ", ".join(str(token.id) for token in group)
    return (
        f"positions {first.position} to {last.position}, ids {ids}, {use}: {len(group)} tokens that are one character"
    )
