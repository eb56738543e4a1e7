"""Print results as tables in the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.compare import met


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def judged(value: float, aim: float | None, reached: bool | None, sign: str) -> str:
    """Format a ratio; with a target, also whether it is met."""
    text = f"{value:.2f}x"
    return text if aim is None else f"{text}, aim {sign} {aim:g}x: {'met' if reached else 'NOT MET'}"


def rows_of(work: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of a comparison: library, rate, range, peak memory, start, trueup's relative speed and memory."""
    aimed_at = list(work["sides"])[1]
    found: list[tuple[str, ...]] = []
    for name, side in work["sides"].items():
        if "failed" in side:
            found.append((name, "did not run", "", "", "", "", ""))
            continue
        ratio, aims = work["ratios"].get(name), work["aims"] if name == aimed_at else {}
        reached = met(ratio, aims) if ratio else {}
        found.append(
            (
                name,
                _rate(side["rate"]),
                f"{_rate(side['slowest'])} to {_rate(side['fastest'])}",
                f"{side['peak_bytes'] / 1e9:.2f}",
                f"{side['first_step_seconds']:.1f}",
                judged(ratio["speed"], aims.get("speed"), reached.get("speed"), ">=") if ratio else "",
                judged(ratio["memory"], aims.get("memory"), reached.get("memory"), "<=") if ratio else "",
            )
        )
    return found


def show(result: dict[str, Any], console: Console) -> None:
    """Print a run's results."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("trueup", "torch", "transformers", "trl"))
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB, no accelerator; {versions}; commit {machine['commit']}"
    )
    console.print(f"float32 matrix products: {max(result['matmul'].values()) / 1e9:.1f} GFLOP/s at best")
    for work in result["works"]:
        if "not_run" in work:
            console.print(f"\n[bold]{work['title']}[/]: NOT RUN: {work['not_run']}", highlight=False)
            continue
        console.print()
        console.print(_table(work))
        for line in notes(work):
            console.print(f"  {line}", highlight=False)
    for line in alone(result):
        console.print(f"\n{line}", highlight=False)


def alone(result: dict[str, Any]) -> list[str]:
    """Return lines for results without a table: sampling, start-up, growth."""
    lines: list[str] = []
    if one := result.get("sampling"):
        ours, theirs = (one["sides"][side]["rate"] for side in ("trueup", "transformers"))
        spread = one["lengths"]
        lines.append(
            f"Sampling, greedy, {spread['answers']} answers of {spread['shortest']} to {spread['longest']} tokens, all "
            f"equal: trueup {_rate(ours)} tokens/s, transformers' generate {_rate(theirs)}: "
            + judged(one["ratio"], one["aim"], one["ratio"] >= one["aim"], ">=")
        )
    if one := result.get("startup"):
        seconds = one["seconds"]
        lines.append(
            f"Start-up, torch imported to the first step on a tiny model: trueup {seconds['trueup']:.1f} s, TRL "
            f"{seconds['TRL']:.1f} s (aim <= {one['aim']:g} s: "
            f"{'met' if seconds['trueup'] <= one['aim'] else 'NOT MET'})"
        )
    for name, points in result.get("growth", {}).items():
        told = "; ".join(
            f"{one['x']:,.0f}: {one['tokens_per_second']:,.0f} tokens/s, {one['peak_bytes'] / 1e9:.2f} GB"
            for one in points
        )
        lines.append(f"Growth, {name}: {told}")
    return lines


def _table(work: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE, title=f"[bold]{work['title']}", title_justify="left")
    for heading in ("", f"{work['unit']}/s", "rounds", "peak GB", "1st step s"):
        table.add_column(heading, no_wrap=True, justify="right" if heading else "left")
    for heading in ("trueup's speed", "trueup's memory"):
        table.add_column(heading)
    for row in rows_of(work):
        table.add_row(*row)
    return table


def notes(work: dict[str, Any]) -> list[str]:
    """Return the notes below a comparison's table."""
    lines = [f"{side['note']}{': ' + side['failed'] if 'failed' in side else ''}" for side in work["sides"].values()]
    if "agreement" in work:
        one = work["agreement"]
        lines.append(
            f"same work: {one['sequences']} sequences alike; over {one['steps']} steps losses differ by at most "
            f"{one['loss']:.1g}, gradient norms {one['norm']:.1g}, {one['tensors']} gradients {one['gradient']:.1g}"
        )
    if "useful" in work:
        share = work["useful"]
        reached = "met" if share["share"] >= share["aim"] else "NOT met"
        lines.append(
            f"useful arithmetic: {share['flops_per_second'] / 1e9:.1f} GFLOP/s, {share['share']:.0%} of the matmul "
            f"rate (aim >= {share['aim']:.0%}: {reached})"
        )
    return lines
