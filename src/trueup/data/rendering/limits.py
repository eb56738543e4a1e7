"""Limits on the rendering of a chat template: processor time, and characters built.

A chat template is a program from whoever published the model. The sandbox (`sandbox.py`) calls `step` in every loop
iteration, call and filter, and `charge` before every operation whose result can be larger than its operands. Both
count for the current thread only, so they hold in every thread and change nothing in the process: no signal handler,
no resource limit. A single operation of the interpreter is not interrupted; `charge` bounds what it can do.
"""

from __future__ import annotations

import re
import threading
import time
from typing import Any, NoReturn

SECONDS = 10.0
"""Processor time of one rendering. A conversation takes about 20 microseconds, one of 64 MB a second."""
CHARACTERS = 2**27
"""Characters that one rendering may build, all intermediate results together, besides a share of the conversation's."""
NODE = 16
"""Characters that an element of a list or dict counts for."""
CONTAINERS = (list, tuple, dict, set, frozenset, type({}.keys()), type({}.values()), type({}.items()))
MEASURED = (str, *CONTAINERS)

_FLAGGED_WIDTH = r"[#0\- +]*(\d+|\*)?(?:\.(\d+|\*))?"
_PRINTF = re.compile("%" + _FLAGGED_WIDTH)
_PRINTF_NAMED = re.compile(r"\)" + _FLAGGED_WIDTH)  # after %(name)


class OverLimit(Exception):  # noqa: N818 - its text is the limit; the caller, who knows the template, makes the error
    """A rendering has used up its time or its characters."""


class _Meter(threading.local):
    """The remaining allowance of the rendering in this thread."""

    characters = 0
    steps = 0
    until = 0.0


_meter = _Meter()


def begin(conversation_characters: int = 0, messages: int = 0) -> None:
    """Start counting for one rendering in this thread.

    A template may copy each content some dozens of times, or append messages to one growing text, which builds
    about messages * characters; so the allowance grows with the conversation.
    """
    _meter.characters = CHARACTERS + (64 + 2 * messages) * conversation_characters
    _meter.steps = 0
    _meter.until = time.thread_time() + SECONDS


def step() -> None:
    """Count one iteration or call; raise OverLimit if the time is used up (read at every 64th)."""
    _meter.steps = steps = _meter.steps + 1
    if not steps & 63:
        _check_time()


def charge(characters: int) -> None:
    """Count characters about to be built; raise OverLimit if the allowance or the time is used up."""
    _meter.characters = left = _meter.characters - characters
    if left < 0:
        _too_large()
    if characters > 65_536:
        _check_time()


def weigh(value: Any) -> int:
    """Return the characters that a value counts for, shared elements as often as they are reached.

    Raises OverLimit instead of walking a structure that is larger than the allowance: [x, x] repeated sixty times
    takes little memory, but its text or a comparison of it would take for ever.
    """
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, CONTAINERS):
        return NODE
    total, stack = 0, [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            total += NODE + len(item)
        elif isinstance(item, CONTAINERS):
            total += NODE * (1 + len(item))
            if total > _meter.characters:
                _too_large()
            stack.extend(item)
            if isinstance(item, dict):
                stack.extend(item.values())
        else:
            total += NODE
    return total


def charge_value(value: Any) -> Any:
    """Charge a text or container, and return it."""
    if type(value) is str:  # mostly
        charge(len(value))
    elif isinstance(value, MEASURED):
        charge(weigh(value))
    return value


def charge_printf(text: str, values: Any) -> None:
    """Charge the largest result that `text % values` can have."""
    charge(len(text) + text.count("%") * weigh(values))
    for widths in _PRINTF.findall(text):
        if "*" in widths:  # the width is among the values; no chat template needs this
            _too_large()
        charge_digits(*widths)
    if "%(" in text:
        for widths in _PRINTF_NAMED.findall(text):
            charge_digits(*(width for width in widths if width != "*"))


def charge_digits(*widths: str) -> None:
    """Charge widths written in digits."""
    for width in widths:
        charge(int(width[:12] or "0"))


def _check_time() -> None:
    if time.thread_time() > _meter.until:
        raise OverLimit(f"more than {SECONDS:g} seconds")


def _too_large() -> NoReturn:
    raise OverLimit(f"more than {CHARACTERS / 1e6:.0f} million characters")
