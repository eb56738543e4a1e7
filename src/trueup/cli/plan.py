"""`trueup plan`: how often a model passes each gate, and how many items it needs, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trueup.config import DEFAULT_LIMITS, GatesConfig, PipelineConfig, gate_problems, load_config
from trueup.config.problems import suggestion
from trueup.errors import ConfigError
from trueup.evaluation.gate_power import GatePower, gate_findings, percent, plan_gates, ships
from trueup.system.console import table

if TYPE_CHECKING:
    from trueup.config import ComparisonConfig


def run(
    config: PipelineConfig | ComparisonConfig, *, limits: Sequence[str], items: Sequence[str],
    discordance: float | None, spreads: Sequence[str], candidates: int | None, as_json: bool,
) -> int:  # fmt: skip
    """Print what each gate of the configuration can decide. Returns 0, or 2 if one cannot pass.

    Args:
        config: the sets, and the gates that `limits` does not name.
        limits: "gate=limit", over those of the configuration.
        items: "gate=n" for gates whose number of items is not that of the sets.
        discordance: share of items on which an unchanged model differs, for all gates on 0/1 values.
        spreads: "gate=value", what is expected of one gate, see `gate_power.EXPECTED`.
        candidates: number of models of which any may ship; None: as the configuration says.
        as_json: print JSON.

    Raises:
        ConfigError: an option names no gate, or its value is no number.
    """
    plans = _plans(config, limits, items, candidates)
    keys = [plan.key for plan in plans]
    sizes, expected = _numbers("--items", items, keys), _numbers("--spread", spreads, keys)
    if discordance is not None:
        expected = {plan.key: discordance for plan in plans if plan.subject.kind == "rates"} | expected
    plans = [
        replace(
            plan,
            n=_whole(plan.key, sizes[plan.key]) if plan.key in sizes else plan.n,
            expected=(expected[plan.key], expected[plan.key]) if plan.key in expected else plan.expected,
        )
        for plan in plans
    ]
    findings = gate_findings(plans, config.allow)
    if as_json:
        together = ships(plans)
        content = {"gates": [plan.as_dict() for plan in plans], "unchanged_ships": together and [*together]}
        print(json.dumps(content, indent=2))
    else:
        _print(plans)
    return ConfigError.exit_code if any(finding.level == "error" for finding in findings) else 0


def _plans(
    config: PipelineConfig | ComparisonConfig, limits: Sequence[str], items: Sequence[str], candidates: int | None
) -> list[GatePower]:
    """Return the plans of the configuration's gates, with the limits given on the command line over its own.

    A gate whose number of items is given needs no judge, reward or set in the configuration: it is only planned.
    """
    gates = config.gates
    if limits:
        over = [*(f"{key}={value}" for key, value in _set(gates)), *(_slice_path(limit) for limit in limits)]
        gates = load_config(GatesConfig, None, over)
    gates = gates or GatesConfig.model_validate(DEFAULT_LIMITS)
    evaluate = config.evaluate if isinstance(config, PipelineConfig) else config
    proxy = config.proxy if isinstance(config, PipelineConfig) else config.reward
    sized = {pair.partition("=")[0] for pair in items}
    problems: list[str] = []
    for place, text in gate_problems(evaluate, gates, proxy):
        key = "/".join(str(part) for part in place[1:] if part != "slices")
        if text.startswith("cannot run") and key in sized:
            continue
        hint = (
            f"\n  fix: or only plan it, with its number of items: -n {key}=N" if text.startswith("cannot run") else ""
        )
        problems.append(f"{'.'.join(map(str, place))}: {text}{hint}")
    if problems:
        raise ConfigError("\n".join(problems))
    judged = len(config.candidates) if isinstance(config, PipelineConfig) else 1
    return plan_gates(evaluate, gates, candidates or judged)


def _set(gates: GatesConfig | None) -> list[tuple[str, object]]:
    """Return the keys of a section `gates` with their values as JSON, which is YAML as well."""
    given = {} if gates is None else gates.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return [(key, json.dumps(value)) for key, value in given.items()]


def _slice_path(limit: str) -> str:
    """Return "slices.capability_drop.maths=0.1" for "capability_drop/maths=0.1"; other limits unchanged."""
    key, equals, value = limit.partition("=")
    if not equals:
        raise ConfigError(f"--limit {limit}: write it as GATE=LIMIT, such as capability_drop=0.03")
    gate, slash, part = key.partition("/")
    return f"slices.{gate}.{part}={value}" if slash else limit


def _numbers(option: str, pairs: Sequence[str], keys: Sequence[str]) -> dict[str, float]:
    """Return gate -> number of the pairs "gate=number" that an option was given."""
    numbers: dict[str, float] = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        if key not in keys:
            hint = suggestion(key, keys) or f"; the gates are {', '.join(keys)}"
            raise ConfigError(f"{option} {pair}: {key} is no gate with a limit here{hint}")
        try:
            numbers[key] = float(text)
        except ValueError:
            numbers[key] = -1.0
        if not 0 <= numbers[key] < float("inf"):
            raise ConfigError(f"{option} {pair}: {text!r} is no number of 0 or more; write it as {key}=0.1")
    return numbers


def _whole(key: str, number: float) -> int:
    if number != int(number) or number < 1:
        raise ConfigError(f"--items {key}={number:g}: give a whole number of 1 or more")
    return int(number)


def _print(plans: Sequence[GatePower]) -> None:
    columns = ["gate", "limit", "n", "unchanged", "80% at", "at 1x", "at 2x"]
    rows = [
        [
            plan.key,
            f"{plan.limit:g}",
            "?" if plan.n is None else f"{plan.n:,}",
            percent(*plan.chances) if plan.chances else "?",
            "-" if plan.needed is None else f"{plan.needed:,}",
            _small(plan.at(1)),
            _small(plan.at(2)),
        ]
        for plan in plans
    ]
    table("How often a model passes: unchanged, at its limit (1x), at twice the limit (2x)", columns, rows)
    together = ships(plans)
    if together is not None:
        print(f"An unchanged model ships in {percent(*together)} of evaluations (all gates, as if independent).")
    most = max((plan.candidates for plan in plans), default=1)
    if most > 1:
        print(f"Any of {most} models may ship, so each gate is tested at 2.5% / {most}; gates.model names one.")
    for plan in plans:
        print(f"{plan.key}: {plan.in_words()}" + (f"\n  fix: {plan.fix()}" if plan.fix() else ""))


def _small(chance: float | None) -> str:
    return "-" if chance is None else f"{chance:.2%}" if chance >= 0.0001 else "<0.01%"
