"""The parts of a self-contained HTML page: jinja environment, content security policy, style sheets and icons.

A page is a template that extends `document.html.j2` and fills its blocks `title` and `body`:

    style = html.resource("trueup.pages", "base.css")
    page = html.render(html.environment("trueup.report"), "page.html.j2", style=style, report=report)

Every value is escaped. The page loads nothing from a network, and runs only the script given to `render`.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trueup.system.text import clean, duration

_ICONS = {
    "check": '<circle cx="12" cy="12" r="11" class="fill"/><path d="M6.8 12.6l3.5 3.6 7-7.6" class="cut"/>',
    "cross": '<path d="M7.4 1h9.2L23 7.4v9.2L16.6 23H7.4L1 16.6V7.4z" class="fill"/>'
    '<path d="M8 8l8 8M16 8l-8 8" class="cut"/>',
    "question": '<circle cx="12" cy="12" r="10.4" class="ring dashed"/>'
    '<path d="M9 9.6a3 3 0 1 1 4.4 2.6c-1 .5-1.4 1.1-1.4 2.1M12 17.4v.1" class="line"/>',
    "dash": '<circle cx="12" cy="12" r="10.4" class="ring"/><path d="M7.5 12h9" class="line"/>',
}
_ICON_OF_WORD = {"SHIP": "check", "HOLD": "cross", "NOT SHOWN": "question", "NOT JUDGED": "dash", "CLEAR": "check"} | {
    "pass": "check",
    "fail": "cross",
    "not shown": "question",
    "not run": "dash",
    "NOT MEASURED": "dash",
}
"""Verdict or outcome -> the name of its icon."""


def environment(package: str) -> Environment:
    """Return a jinja environment for the templates of a package and those of `trueup.pages`.

    Values are escaped and an undefined name is an error. A room adds its own filters and globals to the result.
    """
    result = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("trueup.pages", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result.globals["icon"] = icon
    result.filters |= {
        "clean": lambda text: clean(text, one_line=True),
        "count": lambda value: f"{value:,}",
        "duration": duration,
        "slug": lambda word: word.lower().replace(" ", "-"),
    }
    return result


def render(environment: Environment, template: str, *, style: str, script: str = "", **values: Any) -> str:
    """Return a self-contained HTML page (a report, rows, results) as text: the filled template with style and script.

    The text is to be written as UTF-8.

    Args:
        environment: the jinja2 environment that `environment` returns.
        template: the name of a template that extends `document.html.j2`.
        style: the style sheet, from `resource`; not escaped.
        script: the only script that may run, from `resource`; not escaped.
        values: what the template is filled with.
    """
    return environment.get_template(template).render(
        policy=policy(script), style=Markup(style), script=Markup(script), **values
    )


@cache
def resource(package: str, name: str) -> str:
    """Return the text of a file of the package, such as a style sheet or a script."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def policy(script: str = "") -> str:
    """Return the content security policy of a page: inline style only, no network, and no script but the given one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{digest}'; " if script else ""
    return f"default-src 'none'; style-src 'unsafe-inline'; {allowed}base-uri 'none'; form-action 'none'"


def icon(word: str) -> Markup:
    """Return the SVG icon of a verdict or outcome, such as SHIP or "pass".

    The word stands next to it, so screen readers skip the icon.
    """
    return Markup(
        '<svg class="icon" width="24" height="24" viewBox="0 0 24 24" aria-hidden="true" focusable="false">'
        f"{_ICONS[_ICON_OF_WORD[word]]}</svg>"
    )
