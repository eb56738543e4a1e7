"""The kit of every page: what is in data is escaped, and only the given script may run."""

from __future__ import annotations

import base64
import hashlib

import pytest
from jinja2 import ChoiceLoader, DictLoader, UndefinedError

from trueup.pages import html

TEMPLATE = (
    '{% extends "document.html.j2" %}{% block title %}{{ name }}{% endblock %}{% block body %}{{ name }}{% endblock %}'
)


def page(template: str = TEMPLATE, **values: object) -> str:
    environment = html.environment("trueup.report")
    environment.loader = ChoiceLoader([DictLoader({"test.html.j2": template}), environment.loader])
    return html.render(environment, "test.html.j2", style="p { margin: 0 }", **values)


def test_values_are_escaped_and_style_and_script_are_not() -> None:
    text = page(name="<b>&</b>", script="a < b")
    assert "<b>" not in text
    assert text.count("&lt;b&gt;&amp;&lt;/b&gt;") == 2
    assert "p { margin: 0 }" in text
    assert "<script>a < b</script>" in text


def test_a_name_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        page("{{ no_such_name }}")


def test_the_policy_names_the_only_script() -> None:
    assert html.policy() == "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    digest = base64.b64encode(hashlib.sha256(b"run()").digest()).decode()
    assert f"; script-src 'sha256-{digest}'; " in html.policy("run()")
    assert "<script>" not in page(name="x")


def test_icons_are_skipped_by_screen_readers() -> None:
    assert 'aria-hidden="true"' in html.icon("pass")
    assert html.icon("pass") == html.icon("SHIP") != html.icon("HOLD")
