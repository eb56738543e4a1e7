"""The results in a terminal: 80 columns, readable without colour."""

from __future__ import annotations

import io

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from trueup.pages.numbers import MINUS, NOT_MEASURED, count, p_value
from trueup.ranking.results import phrases
from trueup.ranking.results.results_schema import Absent, Measured, ModelPairing, PolicySample, RaterRow, Results
from trueup.system.console import table

_WIDTH = 80
_SIGNS = {"CLEAR": "[ok]", "NOT SHOWN": "[?]", "NOT MEASURED": "[-]"}
_SHOWN = 20
"""Rows of a table at most; the page and the JSON have more."""


def terminal(results: Results) -> str:
    """All that fits: the result, win rates, ranking, tags, agreement, raters, length, what was not measured."""
    results = phrases.cleaned(results)
    stream = io.StringIO()
    printer = _ResultsPrinter(results, Console(file=stream, width=_WIDTH, markup=False, emoji=False, highlight=False))
    printer.all()
    return "\n".join(line.rstrip() for line in stream.getvalue().replace(MINUS, "-").splitlines()) + "\n"


class _ResultsPrinter:
    def __init__(self, results: Results, out: Console) -> None:
        self._r, self._out = results, out

    def all(self) -> None:
        head, totals = phrases.headline(self._r), self._r.totals
        self._say(f"{_SIGNS[head.word]} {head.word}  {head.about}")
        self._say(head.sentence)
        self._say(head.stop)
        self._say(
            f"{count(totals.votes, 'vote')} of {count(totals.raters, 'rater')}: {totals.preferences:,} "
            f"preferences, {count(totals.ties, 'tie')}, {totals.both_bad:,} both bad, "
            f"{count(totals.skips, 'skip')}, {totals.gold:,} on gold pairs; "
            f"as of event {totals.event:,}"
        )
        for note in self._r.notes:
            self._say(f"note: {note}")
        self._out.print()
        for sample in self._r.samples:
            self._sample(sample)
        self._ranking()
        self._tags()
        self._reasons()
        self._people()
        self._lengths()
        for gap in self._r.not_measured:
            self._say(f"{NOT_MEASURED}: {gap.what}: {gap.why}")

    def _say(self, text: str, indent: int = 0) -> None:
        if text:
            self._out.print(Padding(Text(text, overflow="fold"), (0, 0, 0, indent), expand=False))

    def _table(self, title: str, columns: list[str], rows: list[list[object]]) -> None:
        if rows:
            table(title, columns, rows[:_SHOWN], console=self._out)
            if len(rows) > _SHOWN:
                self._say(f"and {len(rows) - _SHOWN} more")

    def _sample(self, sample: PolicySample) -> None:
        chosen = "chosen at random" if sample.policy == "random" else "that a reward model was uncertain of"
        self._say(f"win rates on pairs {chosen}: {count(sample.votes, 'vote')}, ties as halves")
        for one in sample.pairings[:_SHOWN]:
            self._pairing(one)
        if len(sample.pairings) > _SHOWN:
            self._say(f"and {len(sample.pairings) - _SHOWN} more pairings")
        self._out.print()

    def _pairing(self, one: ModelPairing) -> None:
        p = p_value(one.p)
        if one.p_adjusted != one.p:
            p += f", after Holm {p_value(one.p_adjusted)}"
        self._say(f"{_SIGNS[phrases.word(one)]} {one.model} against {one.other}: {phrases.found(one)}", 2)
        losses = f"{one.losses:,} {'loss' if one.losses == 1 else 'losses'}"
        counts = f"{count(one.wins, 'win')}, {count(one.ties, 'tie')}, {losses}, {one.both_bad:,} both bad"
        self._say(f"{_share(one.rate)}{f', {p}' if p else ''}; {counts}", 6)
        self._say(f"a decision needs: {phrases.more(one.more)}", 6)
        if isinstance(one.safe, Absent):
            return
        self._say(f"however often you look: {phrases.stop(one)}, {_share(one.safe)} prompts", 6)
        self._say(f"at equal lengths: {_share(one.controlled)}", 6)

    def _ranking(self) -> None:
        rows: list[list[object]] = [
            [one.model, f"{one.rank} ({one.rank_low} to {one.rank_high})", phrases.amount(one.points), one.points.n]
            for one in self._r.ranking
        ]
        if len({one.group for one in self._r.ranking}) > 1:
            rows = [[f"group {one.group + 1}", *row] for one, row in zip(self._r.ranking, rows, strict=True)]
            self._table("ranking within groups, Elo points", ["", "model", "rank", "points", "votes"], rows)
        else:
            self._table("ranking (Bradley-Terry), Elo points", ["model", "rank", "points", "votes"], rows)

    def _tags(self) -> None:
        rows: list[list[object]] = [
            [tag.tag, f"{one.model} against {one.other}", _share(one.rate)]
            for tag in self._r.tags
            for one in tag.pairings
        ]
        self._table("win rates by tag", ["tag", "models", "rate"], rows)

    def _reasons(self) -> None:
        rows: list[list[object]] = [
            [one.model, reason, _share(share)] for one in self._r.reasons for reason, share in one.shares.items()
        ]
        self._table("why answers were preferred", ["winner", "reason", "share of wins with reasons"], rows)

    def _people(self) -> None:
        found = self._r.agreement
        if not isinstance(found.nominal, Absent):
            self._say(f"Krippendorff's alpha, nominal: {_coefficient(found.nominal)} pairs")
            self._say(f"Krippendorff's alpha, ordinal: {_coefficient(found.ordinal)} pairs")
        if not isinstance(self._r.left, Absent):
            self._say(f"side A preferred: {_share(self._r.left)}, {p_value(self._r.left_p)} of one half")
        self._out.print()
        self._table(
            "raters",
            ["rater", "votes", "time", "ties", "side A", "majority", "gold", "longer"],
            [_row(one) for one in self._r.raters],
        )
        for one in self._r.raters:
            for flag in one.flags:
                self._say(f"[!] {one.rater} {flag}")
        couples: list[list[object]] = [
            [f"{one.rater} and {one.other}", one.n, phrases.coefficient(one.kappa), phrases.coefficient(one.weighted)]
            for one in found.raters
        ]
        self._table("Cohen's kappa", ["raters", "pairs", "kappa", "weighted"], couples)

    def _lengths(self) -> None:
        found = self._r.lengths
        if not isinstance(found.longer, Absent):
            self._say(f"the longer answer preferred: {_share(found.longer)}")
        for name, one in (("characters", found.characters), ("words", found.words)):
            if not isinstance(one, Absent):
                self._say(f"winner less loser, {name}: {phrases.amount(one, 1)}, n {one.n:,}")
        self._out.print()


def _row(one: RaterRow) -> list[object]:
    time = None if one.seconds is None else phrases.seconds(one.seconds)
    shares = (one.ties, one.left, one.majority, one.gold, one.longer)
    return [
        one.rater,
        one.votes,
        time,
        *(None if isinstance(share, Absent) else phrases.share(share) for share in shares),
    ]


def _share(one: Measured) -> str:
    return phrases.share(one) if isinstance(one, Absent) else f"{phrases.share(one)} n {one.n:,}"


def _coefficient(one: Measured) -> str:
    return phrases.coefficient(one) if isinstance(one, Absent) else f"{phrases.coefficient(one)} n {one.n:,}"
