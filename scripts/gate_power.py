"""Simulate the default gates: how often models pass that are unchanged, at the limit, and at twice the limit.

    python scripts/gate_power.py --draws 2000

Answers of two models are drawn, and the verdict is decided on them by the code that decides it in a report. Printed is
a Markdown table: for each gate its limit and number of items, the share of unchanged models that pass it as it was
planned and as it was simulated, and the share that passes of models at the limit and at twice the limit. An
unchanged model disagrees with the other one on `--discordance` of the items.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence

import numpy as np

from trueup.config import DEFAULT_LIMITS, GatesConfig
from trueup.evaluation.gate_power import EXPECTED, SUBJECTS, GatePower, percent, ships
from trueup.evaluation.items import Item
from trueup.report.report_schema import ModelVerdict
from trueup.report.verdict import GATES, judge

SIZES = {
    "capability_drop": 600,
    "over_refusal_rise": 300,
    "unsafe_compliance_rise": 200,
    "forgetting_rise": 72,
    "length_growth": 64,
}
"""Gate -> items of the sets that come with trueup."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="simulated evaluations of each kind of model")
    parser.add_argument("--discordance", type=float, default=0.1, help="share of items that are answered otherwise")
    given = parser.parse_args()
    plans = planned(given.discordance)
    verdicts = simulate(plans, {}, given.draws)
    print("| gate | limit | n | unchanged passes: planned | simulated | passes at its limit | at twice |")
    print("|---|---|---|---|---|---|---|")
    for plan in plans:
        passed = np.mean([gate.outcome == "pass" for one in verdicts for gate in one.gates if gate.key == plan.key])
        at, twice = (shipped(simulate([plan], {plan.key: far}, given.draws)) for far in (1.0, 2.0))
        chance = 0.0 if plan.chances is None else plan.chances[0]
        print(f"| `{plan.key}` | {plan.limit:g} | {plan.n} | {chance:.3f} | {passed:.3f} | {at:.4f} | {twice:.4f} |")
    together = ships(plans)
    print(f"\nUnchanged models that ship: {shipped(verdicts):.3f}; planned: {percent(*together) if together else '?'}")


def planned(discordance: float) -> list[GatePower]:
    """Return the plans of the default gates at the sizes of the sets, for one expected discordance."""
    plans: list[GatePower] = []
    for key, limit in DEFAULT_LIMITS.items():
        hard = discordance if SUBJECTS[key].kind == "rates" else EXPECTED[key][1]
        plans.append(GatePower(key, limit, SIZES[key], (hard, hard)))
    return plans


def simulate(plans: Sequence[GatePower], far: Mapping[str, float], draws: int, seed: int = 0) -> list[ModelVerdict]:
    """Return the verdicts on simulated models.

    Args:
        plans: the gates.
        far: gate -> distance of the model from the other one in limits; 0 for gates that are not in it.
        draws: number of models.
        seed: seed of all answers.
    """
    generator = np.random.default_rng(seed)
    gates = GatesConfig.model_validate({plan.key: plan.limit for plan in plans})
    verdicts: list[ModelVerdict] = []
    for _ in range(draws):
        ours: list[Item] = []
        theirs: list[Item] = []
        for plan in plans:
            a, b = draw(plan, far.get(plan.key, 0.0), generator)
            ours += a
            theirs += b
        verdict = judge(gates, {"base": theirs, "model": ours}, "base", {}, {}, ["model"])
        verdicts.append(verdict.models["model"])
    return verdicts


def draw(plan: GatePower, far: float, generator: np.random.Generator) -> tuple[list[Item], list[Item]]:
    """Return items of a model that is `far` limits worse, and of the one it is compared with."""
    assert plan.n is not None
    assert plan.expected is not None
    gate, n, spread, loss = GATES[plan.key], plan.n, plan.expected[1], far * plan.limit
    if plan.subject.kind == "rates":
        luck, rate = generator.random(n), generator.random(n) < 0.5
        differ = max(spread, loss)
        worse, better = luck < (differ + loss) / 2, (luck >= (differ + loss) / 2) & (luck < differ)
        bad, good = (0.0, 1.0) if gate.cost_is == "drop" else (1.0, 0.0)
        mine = np.where(worse, bad, np.where(better, good, rate))
        other = np.where(worse, good, np.where(better, bad, rate))
        return _items(gate.task, {gate.value: mine}), _items(gate.task, {gate.value: other})
    if plan.subject.kind == "factor":
        sigma = math.sqrt(math.log(1 + spread**2))
        lengths = generator.lognormal(3.0, sigma, size=(2, n))
        mine = lengths[0] * plan.limit**far
        return _items(gate.task, {gate.value: mine}), _items(gate.task, {gate.value: lengths[1]})
    tokens = generator.integers(40, 160, size=n).astype(np.float64)
    theirs = generator.normal(3.0, 0.5, size=n)
    mine = theirs + loss + generator.normal(0.0, spread, size=n)
    return (
        _items(gate.task, {gate.value: mine * tokens, gate.per: tokens}),
        _items(gate.task, {gate.value: theirs * tokens, gate.per: tokens}),
    )


def shipped(verdicts: Sequence[ModelVerdict]) -> float:
    """Return the share of models that ship."""
    return sum(verdict.verdict == "SHIP" for verdict in verdicts) / len(verdicts)


def _items(task: str, columns: Mapping[str, np.ndarray]) -> list[Item]:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [Item(task, str(at), dict(zip(columns, row, strict=True))) for at, row in enumerate(rows)]


if __name__ == "__main__":
    main()
