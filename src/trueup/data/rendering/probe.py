"""Try an untrusted chat template once in a child process, where memory and processor time have hard limits.

The child imports only jinja2 and the sandbox: about a tenth of a second. It exists for what the sandbox's own limits
may miss, such as a crash of the interpreter; an error that a template raises is reported where it is rendered.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from functools import cache

from trueup.data.rendering import limits

MEMORY = 2 * 2**30
"""Bytes of data that the child may allocate."""
_WAIT = 30.0  # times the processor time: a busy machine is not the template's fault
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1])\nfrom trueup.data.rendering.probe import child; child()"
)
_TALK = [{"role": role, "content": "PROBE"} for role in ("user", "assistant", "user", "assistant")]
_SYSTEM = {"role": "system", "content": "PROBE"}
PROBES = (
    *((_TALK[:count], count % 2 == 1) for count in (1, 2, 3, 4)),
    *((_TALK[:count], False) for count in (1, 3)),
    ([_SYSTEM, *_TALK[:1]], True),
    ([_SYSTEM, *_TALK[:3]], True),
)
"""Conversations that a template is tried with, and whether the assistant's header is asked for."""


@cache
def problem_of(template: str, tokens: tuple[tuple[str, str], ...]) -> str:
    """Return the limit (in words) that a chat template breaks when a child process renders PROBES with it; "" if none.

    `tokens` are (name, text) of the special tokens. The result is cached for this process. Where no child can be
    started (a frozen application, no more processes), the sandbox's limits alone hold.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        return ""
    task = {"template": template, "tokens": dict(tokens), "seconds": limits.SECONDS, "characters": limits.CHARACTERS}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CHILD, json.dumps(sys.path)],
            input=json.dumps(task | {"memory": MEMORY}).encode(),
            capture_output=True,
            timeout=_WAIT * limits.SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"more than {limits.SECONDS:g} seconds"
    except OSError:
        return ""
    if done.returncode > 0:  # the child could not be set up, e.g. a path that only this process can import from
        return ""
    if done.returncode < 0:
        return f"more than {limits.SECONDS:g} seconds, or it crashes the interpreter (signal {-done.returncode})"
    return done.stdout.decode()


def child() -> None:
    """Render PROBES with the template given on stdin under hard limits, and print the limit that was broken, if any.

    This is the main function of the child process; stdin holds JSON with the template and the limits.
    """
    from trueup.data.rendering import sandbox

    task = json.load(sys.stdin)
    limits.SECONDS, limits.CHARACTERS = task["seconds"], task["characters"]
    _limit_process(task["memory"], task["seconds"])
    for turns, generate in PROBES:
        try:
            sandbox.render(task["template"], task["tokens"], turns, generate)
        except limits.OverLimit as error:
            print(error, end="")
            return
        except MemoryError:
            print(f"more than {task['memory'] / 2**30:g} GB of memory", end="")
            return
        except Exception:  # noqa: BLE001, S112 - reported where the template is rendered
            continue


def _limit_process(memory: int, seconds: float) -> None:
    try:
        import resource  # not on Windows
    except ImportError:
        return
    whole = int(seconds * len(PROBES)) + 2
    for kind, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_CPU, whole), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # a lower limit is set already
            resource.setrlimit(kind, (most, most))
