"""The mask view as one self-contained page: no script, nothing from a network, and all that data holds is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trueup.preflight.show import words
from trueup.preflight.show.schema import Token, View
from trueup.system.files import atomic_write_text
from trueup.system.text import clean

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class _Item:
    """What stands together on the page: a token, or the tokens of one character. `says` is its tooltip."""

    token: Token
    says: str
    mark: str


def write_html(view: View, path: Path) -> None:
    """Write the page to `path`, as UTF-8."""
    page = _environment().get_template("page.html.j2")
    style = Markup(_base_style() + _text("trueup.preflight.show", "page.css"))
    atomic_write_text(path, page.render(view=view, words=words, items=_items, mark=_mark, style=style, policy=_POLICY))


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("trueup.preflight.show", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["clean"] = lambda text: clean(text, one_line=True)
    return made


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _base_style() -> str:
    """Colours, letters and headings of the report's page, so that both look alike."""
    return _text("trueup.report", "page.css").partition("/* Head and verdict */")[0]


def _mark(view: View, token: Token) -> str:
    """What is written behind a token that ends what is trained."""
    if view.method == "reward":
        return "SCORE" if token.trained else ""
    return "END" if token.end else ""


def _items(view: View, run: Sequence[Token]) -> list[_Item]:
    """The tokens of a run; those that add nothing to the text belong to the character before them."""
    groups: list[list[Token]] = []
    for token in run:
        if token.text or not groups:
            groups.append([])
        groups[-1].append(token)
    return [_Item(group[0], _says(view, group), _mark(view, group[-1])) for group in groups]


def _says(view: View, group: Sequence[Token]) -> str:
    first, last = group[0], group[-1]
    trained = "score read here" if view.method == "reward" else "trained"
    how = trained if first.trained else "only read"
    if len(group) == 1:
        return f"position {first.position}, id {first.id}, {how}"
    ids = ", ".join(str(token.id) for token in group)
    return (
        f"positions {first.position} to {last.position}, ids {ids}, {how}: {len(group)} tokens that are one character"
    )
