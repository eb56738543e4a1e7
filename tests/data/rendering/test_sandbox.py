# ruff: noqa: E501 - templates are one line each
"""The sandbox renders what transformers renders, and stops nothing that real templates do."""

from __future__ import annotations

import pytest

from tiny import TEMPLATE, tiny_tokenizer
from trueup.data.rendering import sandbox

TURNS = [
    {"role": "system", "content": " Be brief & <kind>. "},
    {"role": "user", "content": "Ünïcode\n\ttab 'quoted'"},
    {"role": "assistant", "content": "<think>\nwell\n</think>\n\nYes."},
    {"role": "user", "content": "again"},
]
EVERY = "{% for m in messages %}"
TEMPLATES = {
    "chatml": TEMPLATE,
    "tokens": "{{ bos_token }}" + EVERY + "{{ m.content|trim + eos_token }}{% endfor %}",
    "namespace": "{% set n = namespace(text='', all=[]) %}"
    + EVERY
    + "{% set n.text = n.text ~ m.role %}{% set n.all = n.all + [m] %}{% endfor %}{{ n.text }}{{ n.all|length }}",
    "loop": EVERY
    + "{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem is defined }}{% endfor %}",
    "loop controls": EVERY + "{% if loop.index == 2 %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
    "filtered loop": "{% for m in messages if m.role != 'system' %}{{ m['content'] }}{% else %}none{% endfor %}",
    "recursive loop": "{% for x in [[1, [2]], 3] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
    "macro": "{% macro say(m, end='.') %}<{{ m.role|upper }}>{{ m.content }}{{ end }}{% endmacro %}"
    + EVERY
    + "{{ say(m) }}{{ say(m, end='!') }}{% endfor %}",
    "call block": "{% macro box() %}[{{ caller() }}]{% endmacro %}{% call box() %}{{ messages[0].role }}{% endcall %}",
    "captured": "{% set text %}{{ messages[1].content }}{% endset %}{{ text|length }}{% filter upper %}ab{% endfilter %}",
    "generation": EVERY
    + "{% generation %}{% set x = m.content %}{{ x }}{% endgeneration %}{{ x is defined }}{% endfor %}",
    "json": "{{ messages|tojson }}{{ messages[0]|tojson(indent=2) }}{{ {'b': 1, 'a': '<é>'}|tojson(sort_keys=true) }}",
    "methods": EVERY
    + "{{ m.content.split('</think>')[-1].lstrip('\\n').replace('e', 'E').title().center(9) }}{% endfor %}",
    "joins": "{{ messages|map(attribute='role')|join(', ') }}{{ messages|join('-', attribute='role') }}{{ '|'.join(['a', 'b']) }}",
    "formats": "{{ '%s: %05.1f%%' % ('x', 2) }}{{ '{:>6}|{a}'.format('b', a=1) }}{{ '%s-%s'|format('a', 3) }}{{ '%(a)s' % {'a': [1]} }}",
    "numbers": "{{ 2 ** 10 + 7 % 3 * 2 // 1 - 4 / 2 }}{{ [1, 2]|sum }}{{ 2.567|round(2) }}{{ range(3)|list }}{{ [0] * 3 }}",
    "containers": "{{ [1, ('a', none)] }}{{ {'a': [true]} }}{{ messages[0].items()|list }}{{ dict(a=1).keys()|list }}",
    "slices": "{{ messages[1:][::-1]|map(attribute='role')|list }}{% for b in 'abcde'|batch(2, '-') %}{{ b }}{% endfor %}",
    "selects": "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}{{ messages|rejectattr('role', 'in', ['user'])|first }}",
    "text filters": "{{ 'a b'|indent(2, true)|title|replace('A', 'c')|wordcount }}{{ '<&>'|e }}{{ 'long text'|truncate(6, true, '') }}",
    "wrapping": "{{ 'some words to wrap'|wordwrap(5) }}{{ ' x '|string|trim|center(5)|capitalize }}{{ [3, 1]|sort|unique|list }}",
    "autoescape": "{% autoescape true %}{{ messages[0].content ~ '<' }}{{ '<'|safe }}{% endautoescape %}",
    "undefined": "{{ tools is none }}{{ documents }}{{ nothing is defined }}{{ nothing|default('d') }}{{ nothing }}",
    "unpacking": "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "dates": "{{ strftime_now('%Y') }}",
}


@pytest.mark.parametrize("generate", [False, True])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=list(TEMPLATES))
def test_it_renders_as_transformers_does(template: str, generate: bool) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    theirs = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=generate)
    tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    assert sandbox.render(template, tokens, TURNS, generate) == theirs


def test_a_text_that_grows_message_by_message_is_no_runaway() -> None:
    turns = [{"role": "user" if number % 2 else "assistant", "content": "word " * 200} for number in range(1000)]
    template = (
        "{% set n = namespace(text='', all=[]) %}{% for m in messages %}{% set n.text = n.text + m.role + m.content %}"
        "{% set n.all = n.all + [m] %}{% endfor %}{{ n.text }}"
    )
    assert len(sandbox.render(template, {}, turns, False)) > 1_000_000
