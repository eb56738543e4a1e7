"""Find the rows of an evaluation that a stage trains on (test-set contamination), word for word or nearly.

To compare whole rows is not enough here: a prompt that is measured on may be trained on with an answer behind it,
inside a longer conversation, or as plain text in a chat template. So the question is whether the evaluated text is
*contained* in the trained one: the share of its shingles (`duplicates.shingles`) that the trained text has. Two texts
of one length whose Jaccard similarity is `NEAR` contain 2 NEAR / (1 + NEAR) = 8/9 of each other, which is the limit.

Memory grows with the evaluated rows alone; the trained rows pass by. Of each evaluated text up to 64 windows of 24
bytes are looked up among all windows of the trained texts, and only pairs that share many of these are compared. An
edit destroys at most 24 of them and 8 shingles, so a text that passes keeps two thirds of its windows. Prompts
shorter than a window are common phrases of longer texts: they count only where they are all that the trained row
asks.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trueup.data.rendering.messages import TOOLS, Message, Origin
from trueup.data.tokens.duplicates import NEAR, SHINGLE, alike, normalised, numbers_of, rolling_hashes, shingles
from trueup.data.tokens.findings import Finding, trained_on
from trueup.data.tokens.select import Examples, Selected
from trueup.data.tokens.store import Tokenized, read_sealed, write_sealed

CONTAINED = 2 * NEAR / (1 + NEAR)
"""The share of an evaluated text's shingles that a trained text must have."""
_WINDOW, _SEEDS = 3 * SHINGLE, 64
_FEWEST_SEEDS, _ALL_SEEDS = 8, 2_000_000  # of a text, of all: 150 bytes each
_LIKELY = 0.4  # of a text's windows that must occur before the texts are compared
_OWNERS = 16  # texts that share a window before it says nothing about any of them
_COMPARED = 200_000_000  # characters of trained texts that are compared (a minute); then the windows decide
_SHOWN = 10
_SHORT = 80  # characters of a message that may be shorter than a window once it is normalised
_CHUNK, _CHUNK_SIZE = 512, 1 << 20  # rows and bytes looked at together

# Of a template that was applied to a text, its control tokens and the names of the roles are left out.
_TAG = re.compile(r"<[|\uff5c]?/?[\w\u2581 .:-]{1,40}[|\uff5c]?/?>|\[/?[A-Z_]{3,24}\]|<<?/?SYS>>?")
_ROLE = re.compile(
    r"^[ \t#*]*(?:user|human|assistant|model|gpt|ai|system|developer|tool|question|answer|q|a|instruction|input|prompt|"
    r"response|output)[ \t*]*(?:$|:[ \t*]*)",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A row that models are evaluated on: its place, its prompt, and the answers that it ranks, if any.

    It counts as trained on where a trained row contains the prompt and one of the answers; where the trained row is a
    prompt, or this row has no answers, the prompt is enough.
    """

    origin: Origin
    prompt: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """An evaluated row that is trained on: its number, the place of the training row, and if it is word for word."""

    row: int
    origin: Origin
    exact: bool


@dataclass(frozen=True, slots=True)
class EvaluatedSet:
    """The rows of one set of an evaluation.

    Attributes:
        name: the key of the configuration, e.g. "evaluate.prompts".
        rows: the rows.
        level: what it is that a stage trains on them: a fault that stops, a warning, or a note.
        ours: the set comes with trueup.
    """

    name: str
    rows: Sequence[Evaluated]
    level: Literal["fault", "warning", "note"]
    ours: bool = False


def plain(text: str) -> str:
    """Return the text as it is compared: normalised (`duplicates.normalised`), without control tokens and role names.

    A text of signs alone is only stripped.
    """
    return normalised(_bare(text)) or text.strip()


def _bare(text: str) -> str:
    """Return the text without control tokens, in whose place is a line's end, and the names of roles before turns."""
    if "<" in text or "[" in text:
        text = _TAG.sub("\n", text)
    return _ROLE.sub("", text) if ":" in text or "\n" in text else text


def joined(messages: Iterable[Message]) -> str:
    """Return the text of messages for `Evaluated`, system messages and declared tools left out."""
    return "\n".join(message.text for message in messages if message.role not in ("system", TOOLS))


class Contamination:
    """The evaluated rows of one set, to be looked up in the rows that stages train on."""

    def __init__(self, rows: Sequence[Evaluated]) -> None:
        """Index the rows; equal prompts share an entry."""
        self.rows = rows
        self._by_prompt: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            self._by_prompt.setdefault(plain(row.prompt), []).append(number)
        self._texts = list(self._by_prompt)
        self._numbers = {text: number for number, text in enumerate(self._texts)}
        self._keys, self._owners, self._sizes = _seeds(self._texts)
        self._seen = np.zeros(1 << 22, bool)
        self._seen[self._keys >> np.uint64(42)] = True
        self._has_short = any(_size(text) < _WINDOW for text in self._texts)
        self._left = _COMPARED

    @property
    def fingerprint(self) -> str:
        """A hash of the rows."""
        content = repr([(row.prompt, row.answers) for row in self.rows])
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def search(self, examples: Examples) -> list[TrainedOn]:
        """Return the rows of this set that occur among the training rows `examples`, each once, ascending."""
        places: dict[int, TrainedOn] = {}
        for part, selected in zip(examples.parts, examples.rows, strict=True):
            for number, row, exact in self._search_cached(part, selected):
                if number not in places or (exact and not places[number].exact):
                    places[number] = TrainedOn(number, part.origin(row), exact)
        return sorted(places.values(), key=lambda place: place.row)

    def _search_cached(self, part: Tokenized, selected: Selected) -> list[tuple[int, int, bool]]:
        """Return the result of `_search`, which is kept next to the tokens: reading a million rows takes a minute."""
        name = hashlib.sha256(self.fingerprint.encode() + selected.tobytes()).hexdigest()[:16]
        path = part.folder / f"evaluated-{name}.json"
        try:
            return [(int(a), int(b), bool(c)) for a, b, c in read_sealed(path)["rows"]]
        except (OSError, ValueError, KeyError, TypeError):
            matches = self._search(part, selected)
        with suppress(OSError):  # another user's cache may be read-only
            write_sealed(path, {"rows": matches})
        return matches

    def _search(self, part: Tokenized, selected: Selected) -> list[tuple[int, int, bool]]:
        """Return (number of an evaluated row, training row, word for word) for the evaluated rows found in `part`."""
        matches: dict[int, tuple[int, bool]] = {}
        self._left = _COMPARED
        for rows, trained in _chunks(part, selected):
            for index, text, share in self._candidates(trained):
                row = trained[index]
                for number in self._by_prompt[self._texts[text]]:
                    exact = row.repeats(self.rows[number])
                    better = number not in matches or (exact and not matches[number][1])
                    if better and self._occurs(self.rows[number], self._texts[text], row, share):
                        matches[number] = rows[index], exact
        return [(number, *match) for number, match in sorted(matches.items())]

    def _candidates(self, trained: Sequence[_Trained]) -> Iterator[tuple[int, int, float]]:
        """Yield (trained row, text of the index, share of its windows that occur there) for pairs worth comparing."""
        if self._has_short:
            for index, row in enumerate(trained):
                yield from ((index, self._numbers[text], 1.0) for text in row.short_prompts if text in self._numbers)
        if not len(self._keys):
            return
        raw = [row.text.encode("utf-8", "surrogatepass") for row in trained]
        lengths = np.array([len(text) + _WINDOW for text in raw])
        hashes = _window_hashes(b"".join(text + b"\0" * _WINDOW for text in raw))
        places = np.flatnonzero(self._seen[hashes >> np.uint64(42)])
        keys = np.searchsorted(self._keys, hashes[places])
        keys[keys == len(self._keys)] = 0
        known = self._keys[keys] == hashes[places]
        places, keys = places[known], keys[known]
        row_of = np.searchsorted(np.cumsum(lengths), places, side="right")
        hits = np.unique(np.stack([row_of, keys], axis=1), axis=0)
        pairs = [(int(row), text) for row, key in hits.tolist() for text in self._owners[key]]
        for (row, text), count in _counted(pairs):
            if count >= _LIKELY * self._sizes[text]:
                yield row, text, count / self._sizes[text]

    def _occurs(self, row: Evaluated, prompt: str, trained: _Trained, share: float) -> bool:
        """Return True if the trained row contains the evaluated one, whose prompt is `prompt`, at least nearly.

        `share` of the prompt's windows occur in the trained row: that decides once too much was compared.
        """
        if self._left <= 0:
            return share >= CONTAINED
        self._left -= len(trained.text)
        if not trained.asks(prompt):
            return False
        answers = [] if trained.is_prompt else [answer for text in row.answers if (answer := plain(text))]
        return not answers or any(map(trained.holds, answers))


def _stored_text(messages: Sequence[Sequence[Any]]) -> str:
    """Return what `joined` returns, of stored messages."""
    shown = (message for message in messages if message[0] not in ("system", TOOLS))
    return "\n".join(message[1] if len(message) == 2 else Message.restored(message).text for message in shown)


class HeldOutCheck:
    """The sets of an evaluation, and by which stages their rows are trained on.

    check = HeldOutCheck(sets)
    check.add("sft", prepared.trained)     # for each stage
    check.findings(allow)
    """

    def __init__(self, sets: Sequence[EvaluatedSet]) -> None:
        """Index the rows of the sets, all in one, so that training rows are read once."""
        self._sets = sets
        self._contamination = Contamination([row for evaluated in sets for row in evaluated.rows])
        self._set_of = [index for index, evaluated in enumerate(sets) for _ in evaluated.rows]
        self._places: list[list[tuple[str, TrainedOn]]] = [[] for _ in sets]

    def add(self, stage: str, trained: Sequence[Examples]) -> None:
        """Look up the rows of all sets in the training rows of a stage, those of `mix` included."""
        places: dict[int, TrainedOn] = {}
        for examples in trained:
            places = {place.row: place for place in self._contamination.search(examples)} | places
        for row in sorted(places):
            self._places[self._set_of[row]].append((stage, places[row]))

    def findings(self, allow: Sequence[str]) -> list[Finding]:
        """Return a finding for each set with rows that are trained on."""
        pairs = zip(self._sets, self._places, strict=True)
        return [self._finding(evaluated, places, allow) for evaluated, places in pairs if places]

    def _finding(
        self, evaluated: EvaluatedSet, places: Sequence[tuple[str, TrainedOn]], allow: Sequence[str]
    ) -> Finding:
        exact = {place.row for _, place in places if place.exact}
        near = {place.row for _, place in places} - exact
        shown = [
            _same_row(self._contamination.rows[place.row].origin, stage, place.origin)
            for stage, place in sorted(places, key=lambda pair: pair[1].row)[:_SHOWN]
        ]
        numbers = {"exact": len(exact), "near": len(near), "rows": len(evaluated.rows)}
        stages = Counter(stage for stage, _ in places)
        return trained_on(evaluated.name, evaluated.level, numbers, stages, shown, allow, ours=evaluated.ours)


def _same_row(held_out: Origin, stage: str, trained: Origin) -> str:
    """Return two places as one short text, "a.jsonl:3 = sft b.jsonl:7"; names of one file in two folders are whole."""
    a, b = Path(held_out.file).name, Path(trained.file).name
    if a == b and held_out.file != trained.file:
        return f"{held_out} = {stage} {trained}"
    return f"{a}:{held_out.line} = {stage} {b}:{trained.line}"


class _Trained:
    """A training row as it is compared.

    Attributes:
        raw: all that it says.
        text: the same as `plain` writes it, between spaces.
        is_text: it is a plain text, without roles.
        is_prompt: it is only a prompt (of PPO), whose answers are sampled.
    """

    __slots__ = ("__dict__", "_prompt", "is_prompt", "is_text", "raw", "text")

    def __init__(self, parts: Sequence[Sequence[Sequence[Any]]]) -> None:
        """Take a row's stored messages (`Tokenized.parts`)."""
        texts = [_stored_text(part) for part in parts]
        self._prompt = parts[0]
        self.raw = "\n".join(texts)
        self.text = f" {' '.join(filter(None, map(plain, texts)))} "
        self.is_text = bool(parts[0]) and parts[0][0][0] == "text"
        self.is_prompt = len(parts) == 1 and not self.is_text

    @cached_property
    def prompts(self) -> set[str]:
        """Its beginnings that end with a question; of a plain text, its lines."""
        if self.is_text:
            return {plain(line) for line in _bare(self.raw).splitlines()}
        ends = [end for end, message in enumerate(self._prompt, 1) if message[0] == "user"]
        return {plain(_stored_text(self._prompt[:end])) for end in ends}

    @property
    def short_prompts(self) -> set[str]:
        """Those of its prompts that may be shorter than a window, and others."""
        if self.is_text or any(message[0] == "user" and len(message[1]) <= _SHORT for message in self._prompt[:2]):
            return self.prompts
        return set()

    @cached_property
    def _shingles(self) -> set[bytes]:
        return shingles(self.text)

    @cached_property
    def _figures(self) -> list[str]:
        return numbers_of(self.text)

    def repeats(self, row: Evaluated) -> bool:
        """Return True if the row has the evaluated row's prompt, and an answer where it ranks any, word for word."""
        answers = [] if self.is_prompt else [text.strip() for text in row.answers if plain(text)]
        return row.prompt.strip() in self.raw and (not answers or any(text in self.raw for text in answers))

    def asks(self, prompt: str) -> bool:
        """Return True if the row contains a prompt (of `plain`), at least nearly; a short one must be all it asks."""
        if _size(prompt) < _WINDOW:
            return prompt in self.prompts
        return self.holds(prompt) or (not self.is_text and any(alike(prompt, text) for text in self.prompts))

    def holds(self, text: str) -> bool:
        """Return True if the row contains a text (of `plain`), at least nearly and with its numbers in their order."""
        if f" {text} " in self.text:
            return True
        if _size(text) < _WINDOW or not _within(numbers_of(text), self._figures):
            return False
        wanted = shingles(text)
        return len(wanted & self._shingles) >= CONTAINED * len(wanted)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _seeds(texts: Sequence[str]) -> tuple[NDArray[np.uint64], list[list[int]], list[int]]:
    """Return the windows to look up, of all texts: their hashes (n,), ascending; owners; how many each text has.

    A window that many texts have says nothing about one of them, unless the text has no others.
    """
    by_hash: dict[int, list[int]] = {}
    chosen: list[list[int]] = []
    most = max(_FEWEST_SEEDS, min(_SEEDS, _ALL_SEEDS // max(1, len(texts))))
    for number, text in enumerate(texts):
        raw = text.encode("utf-8", "surrogatepass")
        count = len(raw) - _WINDOW + 1
        places = np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)) if count > 0 else np.array([], int)
        keys = np.unique(_window_hashes(raw)[places]).tolist() if count > 0 else []
        chosen.append(keys)
        for key in keys:
            by_hash.setdefault(key, []).append(number)
    owners: dict[int, list[int]] = {}
    sizes: list[int] = []
    for number, keys in enumerate(chosen):
        telling = [key for key in keys if len(by_hash[key]) <= _OWNERS]
        kept = telling if len(telling) >= min(4, len(keys)) else keys
        sizes.append(len(kept))
        for key in kept:
            owners.setdefault(key, []).append(number)
    ordered = sorted(owners)
    return np.array(ordered, np.uint64), [owners[key] for key in ordered], sizes


def _window_hashes(raw: bytes) -> NDArray[np.uint64]:
    """Return the hash of each window of 24 bytes, (len(raw) - 23,)."""
    short = rolling_hashes(np.frombuffer(raw, np.uint8))
    count = max(0, len(raw) - _WINDOW + 1)
    mixed = np.zeros(count, np.uint64)
    for third in range(3):
        mixed = (mixed ^ short[third * SHINGLE : third * SHINGLE + count]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _counted(pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], int]]:
    counts: dict[tuple[int, int], int] = {}
    for pair in pairs:
        counts[pair] = counts.get(pair, 0) + 1
    yield from counts.items()


def _chunks(part: Tokenized, selected: Selected) -> Iterator[tuple[list[int], list[_Trained]]]:
    """Yield the selected rows of a section, a few hundred at once: their numbers, and the rows as they are compared."""
    rows, trained, size = list[int](), list[_Trained](), 0
    for row, parts in part.all_parts(selected):
        rows.append(row)
        trained.append(_Trained(parts))
        size += len(trained[-1].text)
        if len(rows) == _CHUNK or size >= _CHUNK_SIZE:
            yield rows, trained
            rows, trained, size = [], [], 0
    if rows:
        yield rows, trained


def _within(inner: Sequence[str], outer: Sequence[str]) -> bool:
    """Return True if `inner` is a run of consecutive items of `outer`."""
    size = len(inner)
    return not size or any(list(outer[at : at + size]) == list(inner) for at in range(len(outer) - size + 1))
