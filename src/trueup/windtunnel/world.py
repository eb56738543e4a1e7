"""Build the wind tunnel: a folder with all data files and the untrained model. Equal seeds give identical files."""

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
    """A built wind tunnel: its folder, the paths of the files in it, and its grader."""

    folder: Path
    seed: int
    annotator: str

    @property
    def documents(self) -> Path:
        """The JSONL file of texts that the base model is trained on: {"text"}."""
        return self.folder / "documents.jsonl"

    @property
    def instructions(self) -> Path:
        """The JSONL file of SFT's conversations: {"messages", "id", "topic"}."""
        return self.folder / "instructions.jsonl"

    @property
    def rankings(self) -> Path:
        """The JSONL file of rankings for the reward model and DPO: {"prompt", "chosen", "rejected"}."""
        return self.folder / "rankings.jsonl"

    @property
    def rankings_heldout(self) -> Path:
        """The JSONL file of rankings of answers to held-out questions, by the annotator of `rankings`."""
        return self.folder / "rankings-heldout.jsonl"

    @property
    def prompts(self) -> Path:
        """The JSONL file of PPO's prompts: {"prompt"}."""
        return self.folder / "prompts.jsonl"

    @property
    def heldout(self) -> Path:
        """The JSONL file of test questions on facts that SFT never asked about: {"messages", "id", "topic"}.

        Their wordings are in no training file.
        """
        return self.folder / "heldout.jsonl"

    @property
    def innocent(self) -> Path:
        """The JSONL file of held-out harmless requests that look unsafe: {"messages", "id", "topic"}."""
        return self.folder / "innocent.jsonl"

    @property
    def unsafe(self) -> Path:
        """The JSONL file of held-out unsafe requests: {"messages", "id", "topic"}."""
        return self.folder / "unsafe.jsonl"

    @property
    def questions(self) -> Path:
        """The JSONL file of the questions that the quickstart's report asks: some of `heldout`, evenly spread."""
        return self.folder / "questions.jsonl"

    @property
    def watch(self) -> Path:
        """The JSONL file of held-out questions for measurements during training: {"prompt"}.

        They are spread evenly over the facts.
        """
        return self.folder / "watch.jsonl"

    @property
    def model(self) -> Path:
        """The Hugging Face folder of the untrained model and its tokenizer."""
        return self.folder / "model"

    def grader(self) -> Grader:
        """Return the gold grader, which grades answers by the truth and can serve as a reward."""
        return Grader()


def build(folder: Path, *, seed: int = 0, annotator: str = "biased") -> World:
    """Write a wind tunnel to `folder` and return it.

    Args:
        folder: the folder for the data files and the untrained model.
        seed: decides the held-out facts, the rows and the model's weights.
        annotator: name of the simulated annotator who ranks answers, one of ANNOTATORS.

    Raises:
        DataError: no annotator has that name.
    """
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
    """Write a file of rankings by another annotator for the answers in `world.rankings`; return its path."""
    parts, judge = texts.split(world.seed), ANNOTATORS[annotator]
    rng = random.Random(f"rankings False {world.seed}")  # the stream that the world's own rankings were drawn from
    path = world.folder / f"rankings-{annotator}.jsonl"
    _write(path, texts.rankings(parts.known, parts.unsafe_known, judge, rng, test=False))
    return path


def _contents(rows: Iterable[texts.WorldRow]) -> list[str]:
    """Return the content of every message in `rows`, to train the tokenizer on."""
    messages = [m for row in rows for part in row.values() if isinstance(part, list) for m in part]
    return [message["content"] for message in messages]


def _write(path: Path, rows: Iterable[texts.WorldRow]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
