"""Write the results of the votes as plain text of 80 columns, readable without colour."""

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
"""Rows of a table, at most; the page and the JSON have more."""


def terminal(results: Results) -> str:
    """Return the main result, win rates, ranking, tags, reasons, raters, lengths and missing results as text."""
    results = phrases.cleaned(results)
    stream = io.StringIO()
    printer = _ResultsPrinter(results, Console(file=stream, width=_WIDTH, markup=False, emoji=False, highlight=False))
    printer.all()
    return "\n".join(line.rstrip() for line in stream.getvalue().replace(MINUS, "-").splitlines()) + "\n"


class _ResultsPrinter:
    def __init__(self, results: Results, out: Console) -> None:
        self._results, self._out = results, out

    def all(self) -> None:
        head, totals = phrases.headline(self._results), self._results.totals
        self._print(f"{_SIGNS[head.verdict]} {head.verdict}  {head.subject}")
        self._print(head.sentence)
        self._print(head.next_step)
        self._print(
            f"{count(totals.votes, 'vote')} of {count(totals.raters, 'rater')}: {totals.preferences:,} "
            f"preferences, {count(totals.ties, 'tie')}, {totals.both_bad:,} both bad, "
            f"{count(totals.skips, 'skip')}, {totals.gold:,} on gold pairs; "
            f"as of event {totals.event:,}"
        )
        for note in self._results.notes:
            self._print(f"note: {note}")
        self._out.print()
        for sample in self._results.samples:
            self._sample(sample)
        self._ranking()
        self._tags()
        self._reasons()
        self._raters()
        self._lengths()
        for missing in self._results.not_measured:
            self._print(f"{NOT_MEASURED}: {missing.what}: {missing.why}")

    def _print(self, text: str, indent: int = 0) -> None:
        if text:
            self._out.print(Padding(Text(text, overflow="fold"), (0, 0, 0, indent), expand=False))

    def _table(self, title: str, columns: list[str], rows: list[list[object]]) -> None:
        if rows:
            table(title, columns, rows[:_SHOWN], console=self._out)
            if len(rows) > _SHOWN:
                self._print(f"and {len(rows) - _SHOWN} more")

    def _sample(self, sample: PolicySample) -> None:
        chosen = "chosen at random" if sample.policy == "random" else "that a reward model was uncertain of"
        self._print(f"win rates on pairs {chosen}: {count(sample.votes, 'vote')}, ties as halves")
        for pairing in sample.pairings[:_SHOWN]:
            self._pairing(pairing)
        if len(sample.pairings) > _SHOWN:
            self._print(f"and {len(sample.pairings) - _SHOWN} more pairings")
        self._out.print()

    def _pairing(self, pairing: ModelPairing) -> None:
        p = p_value(pairing.p)
        if pairing.p_adjusted != pairing.p:
            p += f", after Holm {p_value(pairing.p_adjusted)}"
        sign = _SIGNS[phrases.verdict(pairing)]
        self._print(f"{sign} {pairing.model} against {pairing.other}: {phrases.outcome(pairing)}", 2)
        counts = (
            f"{count(pairing.wins, 'win')}, {count(pairing.ties, 'tie')}, {count(pairing.losses, 'loss', 'losses')}, "
            f"{pairing.both_bad:,} both bad"
        )
        self._print(f"{_share(pairing.rate)}{f', {p}' if p else ''}; {counts}", 6)
        self._print(f"a decision needs: {phrases.votes_needed(pairing.more)}", 6)
        if isinstance(pairing.safe, Absent):
            return
        self._print(f"however often you look: {phrases.prompts_needed(pairing)}, {_share(pairing.safe)} prompts", 6)
        self._print(f"adjusted for length, as a lone pair: {_share(pairing.controlled)}", 6)

    def _ranking(self) -> None:
        ranking = self._results.ranking
        rows: list[list[object]] = [
            [row.model, f"{row.rank} ({row.rank_low} to {row.rank_high})", phrases.amount(row.points), row.points.n]
            for row in ranking
        ]
        if len({strength.group for strength in ranking}) > 1:
            rows = [[f"group {strength.group + 1}", *row] for strength, row in zip(ranking, rows, strict=True)]
            self._table("ranking within groups, Elo points", ["", "model", "rank", "points", "votes"], rows)
        else:
            self._table("ranking (Bradley-Terry), Elo points", ["model", "rank", "points", "votes"], rows)

    def _tags(self) -> None:
        rows: list[list[object]] = [
            [tag.tag, f"{pairing.model} against {pairing.other}", _share(pairing.rate)]
            for tag in self._results.tags
            for pairing in tag.pairings
        ]
        self._table("win rates by tag", ["tag", "models", "rate"], rows)

    def _reasons(self) -> None:
        rows: list[list[object]] = [
            [row.model, reason, _share(share)] for row in self._results.reasons for reason, share in row.shares.items()
        ]
        self._table("why answers were preferred", ["winner", "reason", "share of wins with reasons"], rows)

    def _raters(self) -> None:
        agreement = self._results.agreement
        if not isinstance(agreement.nominal, Absent):
            self._print(f"Krippendorff's alpha, nominal: {_coefficient(agreement.nominal)} pairs")
            self._print(f"Krippendorff's alpha, ordinal: {_coefficient(agreement.ordinal)} pairs")
        if not isinstance(self._results.left, Absent):
            self._print(
                f"side A preferred: {_share(self._results.left)}, {p_value(self._results.left_p)} against one half"
            )
        self._out.print()
        self._table(
            "raters",
            ["rater", "votes", "time", "ties", "side A", "majority", "gold", "longer"],
            [_row(rater) for rater in self._results.raters],
        )
        for rater in self._results.raters:
            for flag in rater.flags:
                self._print(f"[!] {rater.rater} {flag}")
        couples: list[list[object]] = [
            [f"{two.rater} and {two.other}", two.n, phrases.coefficient(two.kappa), phrases.coefficient(two.weighted)]
            for two in agreement.raters
        ]
        self._table("Cohen's kappa", ["raters", "pairs", "kappa", "weighted"], couples)

    def _lengths(self) -> None:
        lengths = self._results.lengths
        if not isinstance(lengths.longer, Absent):
            self._print(f"the longer answer preferred: {_share(lengths.longer)}")
        for unit, gain in (("characters", lengths.characters), ("words", lengths.words)):
            if not isinstance(gain, Absent):
                self._print(f"winner minus loser, {unit}: {phrases.amount(gain, 1)}, n {gain.n:,}")
        self._out.print()


def _row(row: RaterRow) -> list[object]:
    time = None if row.seconds is None else phrases.seconds(row.seconds)
    shares = (row.ties, row.left, row.majority, row.gold, row.longer)
    texts = (None if isinstance(share, Absent) else phrases.share(share) for share in shares)
    return [row.rater, row.votes, time, *texts]


def _share(value: Measured) -> str:
    return phrases.share(value) if isinstance(value, Absent) else f"{phrases.share(value)} n {value.n:,}"


def _coefficient(value: Measured) -> str:
    return phrases.coefficient(value) if isinstance(value, Absent) else f"{phrases.coefficient(value)} n {value.n:,}"
