"""Measure trueup's cost over rows, `max_tokens`, sequence length and model size, and draw it.

python -m benchmarks.growth benchmarks/results/FILE.json        draws docs/growth.svg from the results
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import workloads
from benchmarks.compare import measured
from benchmarks.job import Job, start
from benchmarks.works import Plan

ROWS = (500, 2_000, 8_000, 32_000)
MAX_TOKENS = (1_024, 2_048, 4_096, 8_192)
LENGTHS = (64, 128, 256, 512, 1_024)
WIDTHS = (128, 256, 384, 512)
SMALL = workloads.Shape(words=4_096, hidden=256, layers=4, heads=4, intermediate=704, longest=1_024)
STEPS, WARMUP = 6, 2
Point = dict[str, float]


def conversations(count: int, tokens: int, words: int) -> list[workloads.Row]:
    """Return SFT rows of exactly `tokens` tokens, half of them the answer's."""
    draw, first = random.Random(f"growth-{count}-{tokens}"), len(workloads.SPECIAL) + len(workloads.ROLES)

    def text(size: int) -> str:
        return " ".join(f"w{draw.randrange(words - first)}" for _ in range(size))

    answer = tokens // 2
    prompt = tokens - answer - workloads.AROUND_PROMPT
    return [
        {
            "prompt": [{"role": "user", "content": text(prompt)}],
            "completion": [{"role": "assistant", "content": text(answer - workloads.BEHIND_ANSWER)}],
        }
        for _ in range(count)
    ]


def parameters(shape: workloads.Shape) -> int:
    """Return the parameters of a model with tied embeddings, without those of the norms."""
    block = 4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate
    return shape.words * shape.hidden + shape.layers * block


def _point(x: float, job: Job, plan: Plan, scratch: Path, tokens: int) -> Point:
    """Return one measurement: tokens a second over the timed steps, and peak memory."""
    told = start("trueup_side", job, scratch, plan.threads)
    found = measured(told, [job.batch * tokens] * job.steps, WARMUP, 1.0)
    return {"x": x, "tokens_per_second": found.rate, "peak_bytes": found.peak}


def grow(plan: Plan, scratch: Path, console: Console, *, quick: bool) -> dict[str, list[Point]]:
    """Measure all four. `quick` takes two points of each."""
    some = slice(1, 3) if quick else slice(None)
    model = workloads.llama(plan.cache / "growth-256", SMALL)
    base = Job("sft", str(model), "", STEPS + WARMUP, longest=SMALL.longest)

    def rows(count: int, tokens: int) -> str:
        return str(workloads.write(scratch / "rows.jsonl", conversations(count, tokens, SMALL.words)))

    found: dict[str, list[Point]] = {"rows": [], "max_tokens": [], "length": [], "size": []}
    console.print("[bold]growth[/]: rows")
    for count in ROWS[some]:
        job = replace(base, rows=rows(count, 128))
        found["rows"].append(_point(count, job, plan, scratch, 128))
    console.print("  max_tokens")
    for most in MAX_TOKENS[some]:
        batch = MAX_TOKENS[-1] // 128
        job = replace(base, rows=rows(2 * batch, 128), batch=batch, options={"max_tokens": most}, steps=WARMUP + 2)
        found["max_tokens"].append(_point(most, job, plan, scratch, 128))
    console.print("  sequence length")
    for tokens in LENGTHS[some]:
        batch = 2_048 // tokens
        job = replace(base, rows=rows(max(32, 2 * batch), tokens), batch=batch, options={"max_tokens": 2_048})
        found["length"].append(_point(tokens, job, plan, scratch, tokens))
    console.print("  model size")
    for width in WIDTHS[some]:
        shape = replace(SMALL, hidden=width, intermediate=round(2.75 * width))
        job = replace(base, model=str(workloads.llama(plan.cache / f"growth-{width}", shape)), rows=rows(32, 128))
        found["size"].append(_point(parameters(shape), job, plan, scratch, 128))
    return found


def draw(growth: dict[str, list[Point]], machine: dict[str, Any], path: Path) -> None:
    """Draw the four measurements as one SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "trueup", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(10, 6.4), layout="constrained")
        panels = figure.subplots(2, 2)
        _pair(panels[0, 0], growth["rows"], "rows of data", log=True)
        _pair(panels[0, 1], growth["max_tokens"], "max_tokens (tokens computed at once)", log=False)
        _single(panels[1, 0], growth["length"], "tokens of a sequence, as many tokens a step")
        _single(panels[1, 1], growth["size"], "parameters of the model, millions", scale=1e-6)
        cores = f"{machine['processor']}, {machine['threads']} threads, float32"
        figure.suptitle(f"trueup, SFT of a small Llama, every weight: {cores}", fontsize=11)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _pair(axes: Any, points: list[Point], label: str, *, log: bool) -> None:
    """Plot tokens per second and peak memory over x."""
    x = [one["x"] for one in points]
    axes.plot(x, [one["tokens_per_second"] for one in points], "o-", color="#1f5fa8", label="tokens a second (left)")
    axes.set(xlabel=label, ylabel="tokens a second", ylim=(0, 1.3 * max(one["tokens_per_second"] for one in points)))
    other = axes.twinx()
    memory = [one["peak_bytes"] / 1e9 for one in points]
    other.plot(x, memory, "s--", color="#b0501c", label="peak memory (right)")
    other.set(ylabel="peak memory, GB", ylim=(0, 1.3 * max(memory)))
    _ticks(axes, x, log=log)
    lines = [*axes.get_lines(), *other.get_lines()]
    axes.legend(lines, [one.get_label() for one in lines], loc="lower right", frameon=False)


def _single(axes: Any, points: list[Point], label: str, *, scale: float = 1.0) -> None:
    """Plot microseconds per token over x."""
    x = [one["x"] * scale for one in points]
    cost = [1e6 / one["tokens_per_second"] for one in points]
    axes.plot(x, cost, "o-", color="#1f5fa8")
    axes.set(xlabel=label, ylabel="microseconds a token", ylim=(0, 1.2 * max(cost)), xlim=(0, 1.05 * max(x)))
    axes.grid(alpha=0.3)


def _ticks(axes: Any, x: list[float], *, log: bool) -> None:
    if log:
        axes.set_xscale("log")
    axes.set_xticks(x, [f"{value:,.0f}" for value in x])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def main() -> None:
    """Draw the figure of a results file."""
    if len(sys.argv) != 2:
        sys.exit("python -m benchmarks.growth benchmarks/results/FILE.json")
    result = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if "growth" not in result:
        sys.exit(f"{sys.argv[1]}: this run did not measure growth")
    draw(result["growth"], result["machine"], Path(__file__).parent.parent / "docs" / "growth.svg")


if __name__ == "__main__":
    main()
