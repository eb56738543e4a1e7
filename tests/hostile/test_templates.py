"""A chat template is a program of whoever made the model: sandboxed, and bounded in time, memory and output."""

from __future__ import annotations

import pickle
import resource
import signal
import subprocess
import sys
import time
import timeit
from pathlib import Path

import pytest

from tiny import TEMPLATE, tiny_tokenizer
from trueup.data.rendering import limits
from trueup.data.rendering.messages import Message
from trueup.data.rendering.renderer import Renderer
from trueup.errors import ModelError

LONG = "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}"
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
}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.5)
    monkeypatch.setattr(limits, "MEMORY", 2**28)


@pytest.mark.parametrize("template", ENDLESS.values(), ids=list(ENDLESS))
def test_a_template_that_runs_away_is_stopped(template: str, hurried: None) -> None:
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
        "{% if messages|length > 3 %}" + ENDLESS["loops that write nothing"] + "{% endif %}" + TEMPLATE
    )
    renderer = Renderer(tokenizer)
    talk = [Message(role, "a") for role in ("user", "assistant")]
    assert renderer.conversation(talk).ids
    with pytest.raises(ModelError, match=r"runs away: it takes more than 0\.5 seconds"):
        renderer.conversation([*talk, *talk])
    assert renderer.conversation(talk).ids  # and the process goes on


def test_a_pickled_renderer_in_a_process_of_its_own_is_bounded_too(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% if messages|length > 3 %}{{ 'a' * 10**10 }}{% endif %}" + TEMPLATE
    (tmp_path / "renderer").write_bytes(pickle.dumps(Renderer(tokenizer)))
    code = (
        "import pickle, sys; from trueup.data.rendering.messages import Message\n"
        "renderer = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "talk = [Message(role, 'a') for role in ('user', 'assistant')]\n"
        "renderer.conversation(talk * 2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "renderer")], capture_output=True, text=True, check=False
    )
    assert "runs away: it takes more than 2 GB of memory" in done.stderr


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
    with pytest.raises(ModelError, match=r"chat template (refuses|of .* breaks)"):
        Renderer(tokenizer)


def test_limits_end_with_the_rendering() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA), signal.getitimer(signal.ITIMER_VIRTUAL)
    inside = limits.within_limits(
        lambda: (resource.getrlimit(resource.RLIMIT_DATA), signal.getitimer(signal.ITIMER_VIRTUAL))
    )
    assert inside[0] != before[0]
    assert 0 < inside[1][0] <= limits.SECONDS + 0.1
    assert (resource.getrlimit(resource.RLIMIT_DATA), signal.getitimer(signal.ITIMER_VIRTUAL)) == before
    with pytest.raises(ZeroDivisionError):
        limits.within_limits(lambda: 1 / 0)
    assert (resource.getrlimit(resource.RLIMIT_DATA), signal.getitimer(signal.ITIMER_VIRTUAL)) == before


def test_a_process_that_has_grown_is_not_refused_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMORY", 2**26)
    limits.within_limits(int)
    held = bytes(2**28)  # more than the limit, since the size was read
    assert limits.within_limits(lambda: len(bytes(2**25))) == 2**25
    assert len(held) == 2**28


def test_time_spent_by_others_is_not_the_templates(hurried: None) -> None:
    def asleep() -> int:
        time.sleep(1)
        return 3

    assert limits.within_limits(asleep) == 3


def test_a_long_conversation_is_no_runaway() -> None:
    renderer = Renderer(tiny_tokenizer())
    talk = (Message("user", "ä" * 3_000_000), Message("assistant", "b" * 3_000_000))
    assert len(renderer.conversation(talk).ids) > 9_000_000


def test_limits_cost_microseconds() -> None:
    times = 20_000
    took = min(timeit.repeat(lambda: limits.within_limits(int), number=times, repeat=3)) / times
    assert took < 30e-6  # some 3 on an idle machine
