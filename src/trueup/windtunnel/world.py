"""Build the wind tunnel: a folder with all data files and the untrained model, the same bytes for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trueup.errors import DataError
from trueup.windtunnel import documents as texts
from trueup.windtunnel.annotators import ANNOTATORS
from trueup.windtunnel.grader import Grader

ASKED = 240
"""Questions in the quickstart's report."""
WATCHED = 200
"""Questions asked at each measurement while training."""


@dataclass(frozen=True, slots=True)
class World:
    """A built wind tunnel: the paths of its files, and its grader."""

    folder: Path
    seed: int
    annotator: str

    @property
    def documents(self) -> Path:
        """The texts of the base model: {"text"}."""
        return self.folder / "documents.jsonl"

    @property
    def instructions(self) -> Path:
        """The rows of SFT: {"messages", "id", "topic"}."""
        return self.folder / "instructions.jsonl"

    @property
    def rankings(self) -> Path:
        """The rows of the reward model and DPO: {"prompt", "chosen", "rejected"}."""
        return self.folder / "rankings.jsonl"

    @property
    def rankings_heldout(self) -> Path:
        """Rankings of answers to held-out questions, by the same annotator."""
        return self.folder / "rankings-heldout.jsonl"

    @property
    def prompts(self) -> Path:
        """The prompts of PPO: {"prompt"}."""
        return self.folder / "prompts.jsonl"

    @property
    def heldout(self) -> Path:
        """Questions of facts that SFT never asked about, in wordings no stage has read: {"messages", "id", "topic"}."""
        return self.folder / "heldout.jsonl"

    @property
    def innocent(self) -> Path:
        """Held-out harmless requests that look unsafe: {"messages", "id", "topic"}."""
        return self.folder / "innocent.jsonl"

    @property
    def unsafe(self) -> Path:
        """Held-out unsafe requests: {"messages", "id", "topic"}."""
        return self.folder / "unsafe.jsonl"

    @property
    def questions(self) -> Path:
        """Some of `heldout`, evenly spread: what the quickstart's report asks."""
        return self.folder / "questions.jsonl"

    @property
    def watch(self) -> Path:
        """Held-out questions, evenly spread over the facts, for measurements while training: {"prompt"}."""
        return self.folder / "watch.jsonl"

    @property
    def model(self) -> Path:
        """The untrained model and its tokenizer, a Hugging Face folder."""
        return self.folder / "model"

    def grader(self) -> Grader:
        """Return the gold grader, which is also a reward."""
        return Grader()


def build(folder: Path, *, seed: int = 0, annotator: str = "biased") -> World:
    """Write a world to `folder` and return it. Raises DataError when no annotator has that name."""
    # Imported here, because transformers takes seconds to import and grading does not need it.
    from trueup.windtunnel import model

    if annotator not in ANNOTATORS:
        raise DataError(f"annotator: {annotator!r} is unknown; there are {', '.join(ANNOTATORS)}")
    world = World(folder, seed, annotator)
    judge, parts = ANNOTATORS[annotator], texts.split(seed)
    innocent = [fact for fact in parts.heldout if fact.innocent]
    corpus, lessons = texts.documents(), texts.instructions(parts, seed)
    ranked, unseen = (
        texts.rankings(facts, requests, judge, random.Random(f"rankings {test} {seed}"), test=test)
        for facts, requests, test in (
            (parts.known, parts.unsafe_known, False),
            (parts.heldout, parts.unsafe_heldout, True),
        )
    )
    files = {
        world.documents: [{"text": text} for text in corpus],
        world.instructions: lessons,
        world.rankings: ranked,
        world.rankings_heldout: unseen,
        world.prompts: texts.prompts(parts, seed),
        world.heldout: texts.exam(parts.heldout),
        world.innocent: texts.exam(innocent),
        world.unsafe: texts.unsafe_exam(parts.unsafe_heldout),
        world.questions: texts.evenly_spread(texts.exam(parts.heldout), ASKED),
        world.watch: texts.questions(texts.evenly_spread(texts.exam(parts.heldout), WATCHED)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for path, rows in files.items():
        _write(path, rows)
    model.write(world.model, [*corpus, *_contents(lessons), *_contents(ranked)], seed)
    return world


def rank_again(world: World, annotator: str) -> Path:
    """Write another annotator's rankings of answers to the same questions: rankings-<annotator>.jsonl."""
    parts, judge = texts.split(world.seed), ANNOTATORS[annotator]
    rng = random.Random(f"rankings False {world.seed}")  # the stream that the world's own rankings were drawn from
    path = world.folder / f"rankings-{annotator}.jsonl"
    _write(path, texts.rankings(parts.known, parts.unsafe_known, judge, rng, test=False))
    return path


def _contents(rows: Iterable[texts.WorldRow]) -> list[str]:
    """Return every message content in `rows`, for the tokenizer."""
    messages = [m for row in rows for part in row.values() if isinstance(part, list) for m in part]
    return [message["content"] for message in messages]


def _write(path: Path, rows: Iterable[texts.WorldRow]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
