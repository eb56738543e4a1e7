"""A chat template is a program of whoever made the model: sandboxed, and bounded in time, memory and output."""

from __future__ import annotations

import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tiny import TEMPLATE, tiny_tokenizer
from trueup.data.rendering import limits, probe
from trueup.data.rendering.messages import Message
from trueup.data.rendering.renderer import Renderer
from trueup.errors import ModelError

LONG = "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}"
NESTED = "{%% set n = namespace(x=[1]) %%}{%% for i in range(60) %%}{%% set n.x = %s %%}{%% endfor %%}{{ %s }}"
GROWING = "{%% set n = namespace(x='ab') %%}{%% for i in range(9999) %%}%s{%% endfor %%}"
ENDLESS = {
    "loops that write nothing": LONG + "{% endfor %}{% endfor %}{% endfor %}",
    "loops that write": LONG + "x{% endfor %}{% endfor %}{% endfor %}",
    "a long text": "{{ 'a' * 10**10 }}",
    "a long list": "{{ ([0] * 10**10)|length }}",
    "a large power": "{{ 9**(9**9) }}",
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling lists": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "a wide format": "{{ '%10000000000d' % 1 }}",
    "a wide column": "{{ 'a'|center(10**10) }}",
    "a long indent": "{{ [[1]]|tojson(indent=10**10) }}",
    "a calling macro": "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "a doubling macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "many paragraphs": "{{ lipsum(n=10**9) }}",
    "much text for every row": "{% for i in range(40) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "a slow search": "{{ ('a' * 10**6)|replace('a', 'b' * 10**6) }}",
    "a wide text format": "{{ '{:>10000000000}'.format(1) }}",
    "a computed width": "{{ '%*d' % (10000000000, 1) }}",
    "a wide method": "{{ 'a'.ljust(10000000000) }}",
    "tabs": "{{ ('\t' * 10**5).expandtabs(10**6) }}",
    "a shared text joined": "{{ ''.join(['a' * 10**6] * 10**5) }}",
    "a filled batch": "{{ [1]|batch(10**10, 'a' * 10**6)|list|length }}",
    "a long fraction": "{{ 1|round(10**10, 'ceil') }}",
    "products": "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "growth in a namespace": GROWING % "{% set n.x = n.x + n.x[:10**6] %}",
    "a captured block, doubled": GROWING % "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}",
    "a replacement, again and again": GROWING % "{% set n.x = n.x.replace('a', 'aa') %}",
    "quotes in quotes": GROWING % "{% set n.x = n.x|tojson %}",
    "a growing format": GROWING % "{% set n.x = '{0}{0}'.format(n.x) %}",
    "texts added up": "{{ (['a' * 1000] * 100000)|sum(start='')|length }}",
    "a dict of one long text": "{{ dict.fromkeys(range(99999), 'x' * 10**6)|string }}",
    "tuples as a key": NESTED % ("(n.x, n.x)", "{n.x: 1}"),
    "a growing macro": "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}" + GROWING % "{% set n.x = f(n.x) %}",
    "a macro inside itself": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "a recursive loop": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "lists in lists, written": NESTED % ("[n.x, n.x]", "n.x"),
    "lists in lists, compared": NESTED % ("[n.x, n.x]", "n.x == [n.x]"),
    "dicts in dicts, by their views": NESTED % ("{1: n.x, 2: n.x}.items()", "n.x"),
    "tuples in a filled batch": NESTED % ("[n.x]|batch(2, n.x)|list", "n.x|string"),
}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.2)


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No child process tries the template, so the limits of the rendering itself must hold."""
    monkeypatch.setattr(probe, "problem_of", lambda *_: "")


@pytest.mark.parametrize("template", ENDLESS.values(), ids=list(ENDLESS))
def test_a_template_that_runs_away_is_stopped_in_process(template: str, hurried: None, untried: None) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.name_or_path = "owner/evil\x1b[2J"
    tokenizer.chat_template = template + TEMPLATE
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        Renderer(tokenizer)
    assert time.monotonic() - started < 8
    said = str(caught.value)
    assert r"owner/evil\x1b" in said
    assert "\x1b" not in said
    assert "fix: give the tokenizer another chat_template" in said


def test_a_template_that_bides_its_time_is_stopped_at_the_row(hurried: None) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% if messages|length > 5 %}" + ENDLESS["loops that write nothing"] + "{% endif %}" + TEMPLATE
    )
    renderer = Renderer(tokenizer)
    talk = [Message(role, "a") for role in ("user", "assistant")]
    assert renderer.conversation(talk).ids
    with pytest.raises(ModelError, match=r"runs away: it takes more than 0\.2 seconds"):
        renderer.conversation(talk * 3)
    assert renderer.conversation(talk).ids  # and the process goes on


def test_a_pickled_renderer_in_a_process_of_its_own_is_bounded_too(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% if messages|length > 5 %}{{ 'a' * 10**10 }}{% endif %}" + TEMPLATE
    (tmp_path / "renderer").write_bytes(pickle.dumps(Renderer(tokenizer)))
    code = (
        "import pickle, sys; from trueup.data.rendering.messages import Message\n"
        "renderer = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "talk = [Message(role, 'a') for role in ('user', 'assistant')]\n"
        "renderer.conversation(talk * 3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "renderer")], capture_output=True, text=True, check=False
    )
    assert "runs away: it takes more than 134 million characters" in done.stderr


BREAKS = {
    "no number": "{{ 1 / 0 }}",
    "no list of one": "{{ range(10**9) }}",
    "brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "half a block": "{% for m in messages %}",
    "insides of Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "insides by a filter": "{{ (''|attr('__class__'))|attr('__mro__') }}{{ cycler.__init__.__globals__.os }}",
    "insides by a format": "{{ '{0.__class__.__mro__}'.format(messages) }}{{ x.y.z }}",
    "a file": "{% include '/etc/passwd' %}",
    "messages changed": "{{ messages.append(1) }}",
}


@pytest.mark.parametrize("template", BREAKS.values(), ids=list(BREAKS))
def test_a_template_that_breaks_is_an_error_of_the_model(template: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template + TEMPLATE
    with pytest.raises(ModelError, match=r"chat template (refuses|of .* (breaks|is no valid Jinja))"):
        Renderer(tokenizer)


def test_rendering_changes_no_limit_or_signal_of_the_process(monkeypatch: pytest.MonkeyPatch, untried: None) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the process is the user's")

    for module, name in ((resource, "setrlimit"), (signal, "setitimer"), (signal, "signal")):
        monkeypatch.setattr(module, name, refuse)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{# not ours #}" + TEMPLATE
    assert Renderer(tokenizer).conversation([Message("user", "a"), Message("assistant", "b")]).ids


@pytest.mark.parametrize("name", ["loops that write nothing", "a doubling macro", "doubling", "a long text"])
def test_limits_hold_in_other_threads(name: str, hurried: None, untried: None) -> None:
    errors: list[str] = []

    def render() -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = ENDLESS[name] + TEMPLATE
        try:
            Renderer(tokenizer)
        except ModelError as error:
            errors.append(str(error))

    thread = threading.Thread(target=render)
    thread.start()
    thread.join(20)
    assert len(errors) == 1
    assert "runs away" in errors[0]


def test_a_template_is_tried_once_in_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: started.append(args) or run(*args, **kwargs))
    Renderer(tiny_tokenizer())
    assert not started  # a template that we ship
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{# tried once #}" + TEMPLATE
    Renderer(tokenizer)
    Renderer(tokenizer)
    assert len(started) == 1


def tried(template: str) -> str:
    probe.problem_of.cache_clear()
    return probe.problem_of(template + TEMPLATE, ())


def test_the_child_finds_the_limit_that_a_template_breaks(hurried: None) -> None:
    assert tried("") == ""
    assert tried(ENDLESS["doubling"]) == "more than 134 million characters"
    assert tried(ENDLESS["loops that write nothing"]) == "more than 0.2 seconds"
    assert tried(BREAKS["half a block"]) == ""  # reported where it is rendered


def test_the_child_is_stopped_where_the_sandbox_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHARACTERS", 10**15)
    monkeypatch.setattr(limits, "SECONDS", 0.05)
    monkeypatch.setattr(probe, "MEMORY", 2**28)
    assert tried(ENDLESS["a long text"]) == "more than 0.25 GB of memory"
    assert "more than 0.05 seconds" in tried(ENDLESS["lists in lists, compared"])


def test_a_long_conversation_is_no_runaway() -> None:
    renderer = Renderer(tiny_tokenizer())
    talk = (Message("user", "ä" * 3_000_000), Message("assistant", "b" * 3_000_000))
    assert len(renderer.conversation(talk).ids) > 9_000_000
