"""Broken inputs made of sound ones: bytes flipped, cut, spliced, tokens put in, and JSON values exchanged in place."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

CONTROL = [
    "\x00",
    "\x1b[2J\x1b[31m",
    "\x9b31m",
    "\r",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\ufdd01",
    "\x07",
    "\u200b",
    "\x85",
]
PATHS = [
    "../../outside/secret",
    "/etc/passwd",
    "~/.ssh/id_rsa",
    "../secret.json",
    "file:///etc/passwd",
    "a/../../b",
    ".",
]
NUMBERS = ["0", "-1", "1e999", "-0.0", "1e-400", "NaN", "Infinity", "-Infinity", "9" * 5000, "18446744073709551616",
"0x1f",
           "1_000", "01", "1.", ".5", "+1", "1e", "9223372036854775807", "-9223372036854775809"]  # fmt: skip
JSON_TOKENS = [
    *CONTROL, *PATHS, *NUMBERS, "{", "}", "[", "]", '"', ",", ":", "null", "true", "\\", '\\"', "\\ud800",
    "\\u0000", "\\x",
    '{"a": 1, "a": 2}', "[" * 100_000, '{"a":' * 20_000, "//", "'", "undefined", "\n", "\r\n", "\n\n", "x" * 5000,
    "{}", "[]",
    "<|im_end|>", "<|im_start|>", "\n\nHuman:", "\n\nAssistant:", "<script>", "{{7*7}}", "{% raw %}",
]  # fmt: skip
YAML_TOKENS = [
    *CONTROL, *PATHS, *NUMBERS, ": ", "- ", "? ", "| ", "> ", "&a ", "*a", "*b", "&a [*a]", "<<: *a", "<<: {x: 1}",
    "!!binary ",
    "!!python/object/apply:os.system ['touch fuzzed']", "!!python/name:os.system ", "!!set ", "!!str ", "!!int ",
    "!!map ",
    "!x ", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n", "\t", "[" * 3000, "{" * 3000, "- " * 2000, "[", "]", "{",
    "}", "'", '"',
    "#", "~", "null", ".inf", "-.inf", ".nan", ".", "true", "no", "1:30", "@", "`", "%", "2024-01-01", "\n", "  ",
    "=", "\\",
    '"\\ud800"', '"\\x00"', '"\\e[2J"', "0o7", "x" * 5000,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, -(2**70), 10**400, 1e308, float("nan"), float("inf"), "", " ", "x", "1",
    "nan", "x" * 300,
    [], {}, [[]], [{}], {"": ""}, {"a": None}, [None], ["a", 1], [1, 2, 3], *CONTROL, *PATHS, "\ud800", "é😀",
    "auto", "null",
]  # fmt: skip


def mutated(data: bytes, chance: Random, others: Sequence[bytes], tokens: Sequence[str]) -> bytes:
    """A few random changes to the bytes."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 6))):
        change: Callable[..., None] = chance.choice(CHANGES)
        change(made, chance, others, tokens)
    return bytes(made)


def _span(made: bytearray, chance: Random) -> tuple[int, int]:
    start = chance.randrange(len(made) + 1)
    length = chance.choice((0, 1, 1, 2, 4, 16, chance.randrange(len(made) + 1)))
    return start, min(len(made), start + length)


def _flip(made: bytearray, chance: Random, *_: object) -> None:
    if made:
        made[chance.randrange(len(made))] ^= 1 << chance.randrange(8)


def _poke(made: bytearray, chance: Random, *_: object) -> None:
    if made:
        made[chance.randrange(len(made))] = chance.choice(
            (0, 9, 10, 13, 27, 32, 34, 58, 91, 123, 127, 128, 255, 0xC3, 0xED)
        )


def _delete(made: bytearray, chance: Random, *_: object) -> None:
    start, stop = _span(made, chance)
    del made[start:stop]


def _repeat(made: bytearray, chance: Random, *_: object) -> None:
    start, stop = _span(made, chance)
    made[start:start] = made[start:stop] * chance.choice((1, 1, 2, 3, 100 if stop - start < 300 else 1))


def _truncate(made: bytearray, chance: Random, *_: object) -> None:
    del made[chance.randrange(len(made) + 1) :]


def _insert(made: bytearray, chance: Random, _: object, tokens: Sequence[str]) -> None:
    start, stop = _span(made, chance)
    stop = chance.choice((start, stop))
    made[start:stop] = chance.choice(tokens).encode("utf-8", "surrogatepass")


def _noise(made: bytearray, chance: Random, *_: object) -> None:
    start, stop = _span(made, chance)
    made[start : chance.choice((start, stop))] = chance.randbytes(chance.choice((1, 2, 4, 8, 32)))


def _splice(made: bytearray, chance: Random, others: Sequence[bytes], _: object) -> None:
    other = chance.choice(others)
    start = chance.randrange(len(other) + 1)
    made[chance.randrange(len(made) + 1) :] = other[start:]


def _lines(made: bytearray, chance: Random, *_: object) -> None:
    lines = bytes(made).splitlines(keepends=True)
    if lines:
        at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
        lines[at], lines[other] = chance.choice(
            ((lines[other], lines[at]), (lines[at], lines[at]), (b"", lines[other]))
        )
        made[:] = b"".join(lines)


CHANGES = (_flip, _poke, _delete, _repeat, _truncate, _insert, _insert, _noise, _splice, _lines)


# -- values of JSON or YAML ------------------------------------------------------------------------------------------


def exchanged(value: Any, chance: Random) -> Any:
    """A copy with some of its values exchanged, doubled, wrapped, renamed or gone."""
    made = [copy.deepcopy(value)]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(made))
        around, key = chance.choice(places)
        other_around, other_key = chance.choice(places)
        what = chance.randrange(7)
        if what <= 2:
            around[key] = copy.deepcopy(chance.choice(VALUES))
        elif what == 3:
            around[key] = copy.deepcopy(other_around[other_key])
        elif what == 4:
            around[key] = chance.choice(([around[key]], {"a": around[key]}, str(around[key]), [around[key]] * 3))
        elif isinstance(around, dict) and what == 5:
            around[chance.choice(["", "x", "\x1b[2J", "path", str(key) + "s", str(key).upper()])] = around.pop(key)
        elif isinstance(around, dict) or len(around) > 1 or around is not made:
            del around[key]
    return made[0] if made else None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, (list, dict)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def exchanged_json(data: bytes, chance: Random, *, lines: bool = False) -> bytes:
    """The JSON, or a few of its lines, with values exchanged; bytes that are no JSON as they are."""
    try:
        if not lines:
            return json.dumps(exchanged(json.loads(data), chance)).encode()
        every = data.splitlines()
        for at in {chance.randrange(len(every)) for _ in range(chance.choice((1, 1, 2)))}:
            every[at] = json.dumps(exchanged(json.loads(every[at]), chance)).encode()
        return b"\n".join(every) + b"\n"
    except ValueError:
        return data
