"""Fuzzing `load_config`: every stage, a pipeline, a comparison; YAML and overrides."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
import yaml
from campaign import SECONDS, Case, fuzz
from mutation import YAML_TOKENS, exchanged, mutated

from trueup.config import STAGES, ComparisonConfig, PipelineConfig, load_config, template, to_yaml

CLASSES = {**STAGES, "pipeline": PipelineConfig, "comparison": ComparisonConfig}
EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SMALL = {
    "sft": "model: base\noutput: run\ndata: {path: a.jsonl, use: chosen, rows: '0:9'}\noptim: {lr: 1e-4, steps: 3}\n",
    "reward": "model: base\noutput: run\ndata: [{path: a.jsonl, weight: 2}, b.jsonl]\nlora: {r: 4, alpha: 8}\n",
    "dpo": "model: base\noutput: run\ndata: a.jsonl\nloss: {name: ipo, beta: 0.2}\n"
           "watch: {gold: 'f.py:g', samples: 2}\n",
    "ppo": "model: base\noutput: run\nprompts: a.jsonl\nreward: [r, 'f.py:g']\nrollouts: {episodes: 8}\n"
           "kl: {target: 6.0}\n"
           "mix: {data: b.jsonl, weight: 0.5}\n",
    "pipeline": "name: p\nbase: base\ndata: a.jsonl\nstages:\n  s: {method: sft}\n  r: {method: reward, from: s}\n"
                "  p:\n    method: ppo\n    from: s\n    reward: r\n    prompts: b.jsonl\nevaluate: {limit: 3}\n"
                "gates: {capability_drop: 0.1}\n",
    "comparison": "models: {a: one, b: two}\noutput: out\n",
}  # fmt: skip
OVERRIDES = [
    "optim.lr=1e-5", "data.rows=0:4", "seed=3", "lora={r: 4}", "lora.r=8", "stages.s.optim.lr=1", "a=b", "=",
    "data=[x]", "x",
    "allow=[empty-response]", "optim=", "data.columns={prompt: q}", "loss.name=ipo", "data.0.path=x",
    "watch.gold=f.py:g",
]  # fmt: skip


BOMB = b"a: &a [x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (one, one, b", ".join([b"*%c" % (one - 1)] * 8)) for one in range(ord("b"), ord("k"))
)
"""A few lines that mean 8^10 values."""


def seeds() -> dict[str, list[bytes]]:
    """Sound files for each kind."""
    made = {name: [SMALL[name].encode(), template(cls).encode(), BOMB] for name, cls in CLASSES.items()}
    made["pipeline"] += [path.read_bytes() for path in sorted(EXAMPLES.glob("*.yaml"))]
    return made


SEEDS = seeds()
EVERY = [seed for found in SEEDS.values() for seed in found]
PLAIN = {name: yaml.safe_load(text) for name, text in SMALL.items()}
FULL = {name: [line for line in template(cls).splitlines() if ":" in line] for name, cls in CLASSES.items()}


def some_of(name: str, chance: Random) -> bytes:
    """The template with some of its optional lines switched on."""
    share = chance.choice((0.02, 0.1, 0.5))
    lines = [line.removeprefix("# ") if chance.random() < share else line for line in FULL[name]]
    return "\n".join(line for line in lines if not line.startswith("# ")).encode()


def draw(chance: Random) -> Case:
    name = chance.choice(list(CLASSES))
    way = chance.randrange(10)
    if way < 3:
        data = some_of(name, chance)
        data = data if chance.random() < 0.3 else mutated(data, chance, EVERY, YAML_TOKENS)
    elif way < 6:
        data = yaml.safe_dump(exchanged(PLAIN[name], chance), sort_keys=False).encode("utf-8", "surrogatepass")
    else:
        data = mutated(chance.choice(SEEDS[name][: 1 if way < 8 else None]), chance, EVERY, YAML_TOKENS)
    overrides = [chance.choice(OVERRIDES).encode() for _ in range(chance.choice((0, 0, 0, 1, 1, 2)))]
    overrides = [mutated(one, chance, overrides, YAML_TOKENS) if chance.random() < 0.6 else one for one in overrides]
    return Case(name, data, tuple(one.decode("utf-8", "surrogateescape") for one in overrides))


def check(case: Case, folder: Path) -> None:
    """Load it; what was accepted must come back equal from its own YAML."""
    path = folder / "config.yaml"
    path.write_bytes(case.data)
    config = load_config(CLASSES[case.kind], path, case.words)
    again = folder / "again.yaml"
    again.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(CLASSES[case.kind], again) == config


@pytest.mark.slow
def test_no_configuration_breaks_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fuzz("config", draw, lambda case: check(case, Path(os.curdir)), tmp_path, SECONDS)
