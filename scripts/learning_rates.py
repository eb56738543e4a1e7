"""Sweep the learning rate of every method, with LoRA and full fine-tuning: the table in docs/decisions.md.

    python scripts/learning_rates.py tiny --seeds 5 --output tiny.json
    python scripts/learning_rates.py windtunnel --seeds 3 --output windtunnel.json
    python scripts/learning_rates.py smollm2 --methods dpo,kto,sft --output smollm2.json
    python scripts/learning_rates.py --table tiny.json windtunnel.json smollm2.json

Every run has the defaults of its method, except for the rate, `--steps` steps, batches of 8 and short rows: rankings,
instructions and prompts of the wind tunnel. `tiny` is a random model of 32 dimensions. `windtunnel` is the quickstart's
model after its SFT stage (trained first, two minutes; SFT starts from the base model). `smollm2` is the file of
`make smollm2`. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trueup.config import STAGES, PipelineConfig, load_config
from trueup.errors import TrainingError
from trueup.recipes import dpo, pipeline, ppo, reward, sft
from trueup.stats.intervals import mean
from trueup.system.console import Progress, quiet_libraries
from trueup.windtunnel import World, build
from trueup.windtunnel.quickstart import configure

GGUF = Path(__file__).parents[1] / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
RUN = {"sft": sft.run, "reward": reward.run, "dpo": dpo.run, "kto": dpo.run, "ppo": ppo.run}
MEASURES = {
    "sft": ("loss",),
    "reward": ("accuracy", "margin"),
    "dpo": ("loss", "rewards/margin", "accuracy", "kl", "repetition"),
    "kto": ("rewards/margin", "accuracy", "kl", "repetition"),
    "ppo": ("reward", "kl", "repetition"),
}
"""Method -> held-out measures in the table."""
RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
VOWELS = """
def score(conversations):
    \"\"\"The share of vowels among the letters of each answer.\"\"\"
    letters = [[letter for letter in row.response.lower() if letter.isalpha()] for row in conversations]
    return [sum(letter in "aeiou" for letter in row) / max(len(row), 1) for row in letters]
"""


def main() -> None:
    """Run the sweep that the command line asks for, or print the table of earlier ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=["tiny", "windtunnel", "smollm2"])
    parser.add_argument("--methods", default=",".join(RUN), help="the methods, separated by commas")
    parser.add_argument("--kinds", default="lora,full", help="lora, full or both")
    parser.add_argument("--rates", default=",".join(f"{rate:g}" for rate in RATES), help="the rates")
    parser.add_argument("--seeds", type=int, default=1, help="the number of seeds: of the model, the order, the draws")
    parser.add_argument("--steps", type=int, default=24, help="optimizer steps")
    parser.add_argument("--held-out", type=int, default=60, help="held-out rows")
    parser.add_argument("--samples", type=int, default=32, help="answers sampled for the KL")
    parser.add_argument("--tokens", type=int, default=160, help="the longest row; longer ones are left out")
    parser.add_argument("--folder", type=Path, help="a folder for world and models, to use them again")
    parser.add_argument("--output", type=Path, help="a .json of the measurements; what it has is not measured again")
    parser.add_argument("--table", nargs="+", type=Path, help="print the table of such files")
    given = parser.parse_args()
    if given.table:
        print("\n".join(table([row for path in given.table for row in json.loads(path.read_text())])))
    elif given.model is None or given.output is None:
        parser.error("give a model and --output, or --table")
    else:
        sweep(given)


def sweep(given: argparse.Namespace) -> None:
    """Train once for every method, kind, rate and seed, and write the held-out measures after each run."""
    quiet_libraries()
    rows: list[dict[str, Any]] = json.loads(given.output.read_text()) if given.output.exists() else []
    known = {tuple(row[key] for key in ("model", "method", "kind", "rate", "seed")) for row in rows}
    folder = given.folder or Path(tempfile.mkdtemp())
    for seed in range(given.seeds):
        world, model = start(given.model, folder / f"seed{seed}", seed)
        for method in given.methods.split(","):
            for kind in given.kinds.split(","):
                for rate in (float(text) for text in given.rates.split(",")):
                    if (given.model, method, kind, rate, seed) in known:
                        continue
                    result = train(given, world, model, method, kind, rate, seed, folder / "run")
                    rows.append({"model": given.model, "method": method, "kind": kind, "rate": rate, "seed": seed,
                                 **result})  # fmt: skip
                    print(json.dumps(rows[-1]), file=sys.stderr)
                    given.output.write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")


def start(name: str, folder: Path, seed: int) -> tuple[World, str]:
    """Return the wind tunnel of a seed, and the model that all its runs start from."""
    world = build(folder / "world", seed=seed)
    if name == "smollm2":
        return world, str(GGUF)
    if name == "windtunnel":
        config = configure(world, folder, [f"seed={seed}"])
        first = {key: value for key, value in config.stages.items() if key in ("base", "sft", "reward")}
        values = config.model_dump(mode="json", exclude={"stages", "evaluate", "gates"}, exclude_none=True)
        pipeline.run_stages(PipelineConfig.model_validate({**values, "stages": first}), Progress(quiet=True))
        return world, str(config.folder / "sft" / "model")
    return world, _tiny(folder / "tiny", seed)


def _tiny(folder: Path, seed: int) -> str:
    """Write the tests' tiny random model to `folder`, and return the folder's name."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny import tiny_folder

    return tiny_folder(folder, seed=seed)


def train(
    given: argparse.Namespace, world: World, model: str, method: str, kind: str, rate: float, seed: int, run: Path
) -> dict[str, float]:
    """Train once, and return the held-out measures before (`start/…`) and after training."""
    shutil.rmtree(run, ignore_errors=True)
    held_out = {"rows": f"0:{given.held_out}"}
    values: dict[str, Any] = {
        "model": model, "output": str(run), "seed": seed, "device": "cpu", "threads": 1, "max_length": given.tokens,
        "over_length": "drop", "optim": {"lr": rate, "steps": given.steps, "batch_size": 8}, "lora": None,
        "eval": {"data": {"path": str(world.rankings_heldout), **held_out}},
    }  # fmt: skip
    if kind == "lora":
        values["lora"] = {}
    if method == "sft":
        if given.model == "windtunnel":
            values["model"] = str(Path(model).parents[1] / "base" / "model")
        values |= {"data": str(world.instructions), "eval": {"data": {"path": str(world.heldout), **held_out}}}
    elif method == "ppo":
        values |= {
            "prompts": str(world.prompts), "reward": _reward(given, run.parent / f"seed{seed}"),
            "eval": {"data": {"path": str(world.watch), **held_out}},
            "rollouts": {"episodes": 32, "epochs": 2, "max_new_tokens": 32},
        }  # fmt: skip
    else:
        values["data"] = {"path": str(world.rankings), "limit": 8 * given.steps}
    if method in ("dpo", "kto"):
        values |= {"watch": {"samples": given.samples, "max_new_tokens": 32}}
        values |= {"loss": {"name": "kto" if method == "kto" else "sigmoid"}}
    config = STAGES["dpo" if method == "kto" else method].model_validate(values)
    try:
        RUN[method](config)
    except TrainingError as error:  # a rate too high is a result
        return {"failed": 1.0, "error": type(error).__name__}  # pyright: ignore[reportReturnType]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first, last = lines[0], lines[-1]
    numbers = {name: last[f"eval/{name}"] for name in MEASURES[method] if f"eval/{name}" in last}
    starts = {f"start/{name}": first[f"eval/{name}"] for name in MEASURES[method] if f"eval/{name}" in first}
    return {**(starts if first["step"] == 0 else {}), **numbers, "train/loss": last["loss"],
            **{f"train/{key}": last[key] for key in last if key.endswith(("margin", "ppo/reward"))}}  # fmt: skip


def _reward(given: argparse.Namespace, folder: Path) -> str:
    """Return PPO's reward: the wind tunnel's reward model, or for other models the share of vowels in an answer."""
    if given.model == "windtunnel":
        return str(load_config(PipelineConfig, folder / "pipeline.yaml").folder / "reward")
    path = folder / "vowels.py"
    path.write_text(VOWELS, encoding="utf-8")
    return f"{path}:score"


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a Markdown table: mean [95% interval over seeds] of each measure, by rate."""
    yield "| model | method | weights | rate | seeds | held-out, after training |"
    yield "|---|---|---|---|---|---|"
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in ("model", "method", "kind", "rate")), []).append(row)
    for (model, method, kind, rate), group in sorted(groups.items(), key=str):
        cells = []
        for name in MEASURES[method]:
            for key in (f"start/{name}", name):
                values = [row[key] for row in group if row.get(key) is not None]
                if values:
                    interval = mean(values)
                    span = f" [{interval.low:.3g}, {interval.high:.3g}]" if len(values) > 1 else ""
                    cells.append(f"{key} {interval.value:.3g}{span}")
        failed = sum("failed" in row for row in group)
        cells += [f"{failed} failed"] if failed else []
        yield f"| {model} | {method} | {kind} | {rate:g} | {len(group)} | {', '.join(cells)} |"


if __name__ == "__main__":
    main()
