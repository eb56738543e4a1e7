"""Items: the results of one model on one question, prompt or text, and the JSONL files that hold them.

The report is made from these files alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trueup.system.files import atomic_write_text
from trueup.system.text import terminal_safe_json


@dataclass(frozen=True, slots=True)
class Item:
    """The result of one model on one question. Items of two models with the same task and id are compared as a pair.

    Attributes:
        task: name of the evaluation task, such as "capability".
        id: the question's id, unique within the task.
        values: measured numbers by name, such as {"right": 1.0} or {"nats": 310.2, "tokens": 122}.
        topic: the question's topic, if it has one.
        prompt: the question or prompt as readable text.
        answer: the model's answer, if the task asks for one.
        expected: the right answer, if there is one.
        level: the question's difficulty, if it has one ("1", "2" or "3" in trueup's own sets).
    """

    task: str
    id: str
    values: dict[str, float] = field(default_factory=dict)
    topic: str | None = None
    prompt: str = ""
    answer: str | None = None
    expected: str | None = None
    level: str | None = None


def write_items(path: Path, items: Iterable[Item], header: dict[str, Any]) -> None:
    """Write an items file atomically (JSONL): a line {"header": …}, then one line per item."""
    lines = [json.dumps({"header": header}, ensure_ascii=False)]
    lines += [json.dumps(asdict(item), ensure_ascii=False) for item in items]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, terminal_safe_json("\n".join(lines) + "\n"))


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of an items file ({"key", "seconds", …}); empty where the file is missing or damaged."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as handle:
        try:
            return json.loads(handle.readline()).get("header", {})
        except (ValueError, AttributeError):
            return {}


def read_items(path: Path) -> list[Item]:
    """Return the items in a JSONL file that `write_items` wrote."""
    lines = path.read_text(encoding="utf-8").split("\n")[1:]
    return [Item(**json.loads(line)) for line in lines if line]


def of_task(items: Sequence[Item], task: str, value: str) -> dict[str, float]:
    """Return item id -> `item.values[value]`, for the items of one task that hold that value."""
    return {item.id: item.values[value] for item in items if item.task == task and value in item.values}


def in_slice(item: Item, name: str) -> bool:
    """Return True if the item belongs to the topic or the level `name`; the level 3 is also named "level 3".

    Topics may have parts: an item of the topic "mmlu/law" belongs to "mmlu" as well.
    """
    return (item.level is not None and name in (item.level, f"level {item.level}")) or (
        item.topic is not None and f"{item.topic}/".startswith(f"{name}/")
    )
