"""Limits on the rendering of a chat template: processor time, and the number of characters built.

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
    """Error of a rendering that has used up its time or the number of characters it may build."""


class _Meter(threading.local):
    """The characters and the time that the rendering in the current thread may still use."""

    characters = 0
    steps = 0
    until = 0.0


_meter = _Meter()


def begin(conversation_characters: int = 0, messages: int = 0) -> None:
    """Start counting time and characters for one rendering in the current thread.

    A template may copy each content some dozens of times, or append messages to one growing text, which builds about
    messages * characters; so the number of characters allowed grows with the conversation.
    """
    _meter.characters = CHARACTERS + (64 + 2 * messages) * conversation_characters
    _meter.steps = 0
    _meter.until = time.thread_time() + SECONDS


def step() -> None:
    """Count one loop iteration or call of the template, and check the time at every 64th.

    Raises:
        OverLimit: the time is used up.
    """
    _meter.steps = steps = _meter.steps + 1
    if not steps & 63:
        _check_time()


def charge(characters: int) -> None:
    """Count characters that the template is about to build, before they are built.

    Raises:
        OverLimit: the number of characters allowed, or the time, is used up.
    """
    _meter.characters = left = _meter.characters - characters
    if left < 0:
        _too_large()
    if characters > 65_536:
        _check_time()


def weigh(value: Any) -> int:
    """Return the size of a value in characters: its text, and 16 for each element of a container.

    Elements that are shared count each time they are reached.

    Raises:
        OverLimit: a container is larger than the characters left. It is not walked to the end: [x, x] repeated sixty
            times takes little memory, but its text or a comparison of it would take for ever.
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
    """Count the size of a text or container as characters built (see `charge`), and return the value."""
    if type(value) is str:  # mostly
        charge(len(value))
    elif isinstance(value, MEASURED):
        charge(weigh(value))
    return value


def charge_printf(text: str, values: Any) -> None:
    """Count, before it is built, the largest size that the text `text % values` can have (see `charge`)."""
    charge(len(text) + text.count("%") * weigh(values))
    for widths in _PRINTF.findall(text):
        if "*" in widths:  # the width is among the values; no chat template needs this
            _too_large()
        charge_digits(*widths)
    if "%(" in text:
        for widths in _PRINTF_NAMED.findall(text):
            charge_digits(*(width for width in widths if width != "*"))


def charge_digits(*widths: str) -> None:
    """Count field widths, written as digits in a format string, as characters about to be built (see `charge`)."""
    for width in widths:
        charge(int(width[:12] or "0"))


def _check_time() -> None:
    if time.thread_time() > _meter.until:
        raise OverLimit(f"more than {SECONDS:g} seconds")


def _too_large() -> NoReturn:
    raise OverLimit(f"more than {CHARACTERS / 1e6:.0f} million characters")
