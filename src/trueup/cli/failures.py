"""Turn the error that ends a command into one message for a person and an exit code."""

from __future__ import annotations

import errno
import re
import sys
import traceback
from typing import Any

from trueup.errors import ConfigError, Interrupted, LostPeerError, TrueupError
from trueup.system.files import is_disk_full

_TRAINING = ("sft", "reward", "dpo", "ppo")
_RESUMES = (*_TRAINING, "run", "quickstart", "experiment", "evaluate", "audit")
"""Commands that continue where they stopped when they are run again."""


OTHER_COMMANDS = {
    "train": "train with trueup sft, reward, dpo or ppo CONFIG.yaml, or all stages of a file with trueup run",
    "finetune": "fine-tuning is trueup sft CONFIG.yaml, with lora: {} for adapters",
    "grpo": "GRPO is trueup ppo with rollouts.advantage=grpo and rollouts.per_prompt=4 or more",
    "rloo": "RLOO is trueup ppo with rollouts.advantage=rloo and rollouts.per_prompt=4 or more",
    "kto": "KTO is trueup dpo with loss.name=kto",
    "orpo": "ORPO is trueup dpo with loss.name=orpo",
    "simpo": "SimPO is trueup dpo with loss.name=simpo",
    "ipo": "IPO is trueup dpo with loss.name=ipo",
    "rm": "a reward model is trained by trueup reward",
    "reward_model": "a reward model is trained by trueup reward",
    "pipeline": "a pipeline is run by trueup run PIPELINE.yaml",
    "eval": "models are measured by trueup evaluate",
    "test": "models are measured by trueup evaluate",
    "generate": "answers are sampled by trueup chat RUN",
    "inference": "answers are sampled by trueup chat RUN",
    "serve": "talk to a model with trueup chat RUN; trueup export RUN writes a folder that a server can load",
    "merge": "adapters are merged by trueup export RUN",
    "push": "a model is uploaded by trueup export RUN --push-to-hub OWNER/NAME",
    "preprocess": "data is looked at by trueup check and trueup show; stages prepare it by themselves",
    "validate": "data and models are checked by trueup check",
    "init": "a configuration to fill in is printed by trueup config METHOD",
    "resume": "the same command with the same output resumes",
    "annotate": "people compare answers on the page of trueup rank",
}
"""Commands of other tools -> the command here."""


def error_message(error: BaseException, command: str = "") -> tuple[str, int]:
    """Return the text to print for an error that ended a command, and the exit code (see errors.py)."""
    if isinstance(error, Interrupted):
        return str(error), error.exit_code
    if isinstance(error, TrueupError):
        return f"error: {error}", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        more = "; the same command goes on from what was saved before" if command in _RESUMES else ""
        return f"interrupted{more}", Interrupted.exit_code
    usage = getattr(error, "format_message", None)
    if usage is not None:  # Typer's errors; their class is private, and another one in older versions
        return f"error: {_usage_message(usage(), getattr(error, 'ctx', None))}", ConfigError.exit_code
    if _out_of_memory(error):
        return f"error: out of memory{_memory_advice(_stage_of(error) or command)}", 1
    if "trueup.runtime" in sys.modules and (lost := sys.modules["trueup.runtime"].lost_peer_message(error)):
        return f"error: {lost}", LostPeerError.exit_code
    if is_disk_full(error) or (isinstance(error, OSError) and error.strerror):
        return f"error: {_os_message(error)}", 1
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return f"error: {reason}\nrun again with --debug for the traceback", 1


def _out_of_memory(error: BaseException) -> bool:
    """Return True if the error means that the machine or the GPU ran out of memory.

    Torch raises a RuntimeError for it, with a different text for each backend.
    """
    if isinstance(error, RuntimeError):
        words = ("out of memory", "can't allocate memory", "alloc_failed")
        return type(error).__name__ == "OutOfMemoryError" or any(word in str(error).lower() for word in words)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def _stage_of(error: BaseException) -> str | None:
    """Return the method ("sft", …) of the training stage in which an error was raised, from its traceback; else None.

    A pipeline runs several stages, so the command alone does not tell.
    """
    stage = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package, _, name = str(frame.f_globals.get("__name__")).rpartition(".")
        stage = name if package == "trueup.recipes" and name in _TRAINING else stage
    return stage


def _memory_advice(command: str) -> str:
    """Return advice on which settings to lower after running out of memory.

    Settings that change no result come first, as the run may continue with them.
    """
    if command in ("run", "evaluate", "audit"):
        section = "evaluate." if command == "run" else ""
        return f": lower {section}max_tokens, which changes no result, or {section}max_new_tokens"
    if command not in _TRAINING:
        return ": use a smaller model, or dtype=bfloat16" if command == "chat" else ""
    length = "rollouts.max_new_tokens" if command == "ppo" else "max_length"
    return (
        ": lower max_tokens, or set gradient_checkpointing=true\n"
        "With these the same command continues from the last checkpoint, to the same result up to rounding.\n"
        f"If that is not enough, train into another `output` with a lower {length}, or adapters only (lora.r=16)."
    )


def _usage_message(message: str, context: Any = None) -> str:
    """Return the message for a wrong command line: the problem, a hint, and the `--help` to read on.

    Args:
        message: the message of Typer's error.
        context: Typer's context of the command, if known.
    """
    text, _, near = message.partition(" (Possible options")
    text, path = text.rstrip(".").replace("Value error, ", ""), context.command_path if context else "trueup"
    takes_settings = context is None or any(
        parameter.name in ("settings", "runs", "models") for parameter in context.command.params
    )
    if text.lower().startswith("no such option") and takes_settings:
        return f"{text}; settings are written without dashes: key=value (`{path} --help` lists options)"
    command = re.match(r"no such command '(.+?)'", text, re.IGNORECASE)
    if command and (here := OTHER_COMMANDS.get(command[1].lower().replace("-", "_"))):
        return f"{command[0]}; {here}"
    meant = re.search(r"--[\w-]+", near)
    return f"{text}; {f'did you mean {meant[0]}? ' if meant else ''}see `{path} --help`"


def _os_message(error: BaseException) -> str:
    place = f"{name}: " if (name := getattr(error, "filename", None)) else ""
    if not isinstance(error, OSError) or is_disk_full(error):
        return f"{place}disk full; free some space and run the same command again"
    reason = (error.strerror or "").lower()
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{place}no permission ({reason}); choose another folder or change its permissions"
    return f"{place}{reason}"
