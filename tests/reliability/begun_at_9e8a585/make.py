# ruff: noqa: E402
"""Make the folders beside this file with trueup as it was at 9e8a585. Not to be run with later code: see README.md.

git worktree add --detach BASE 9e8a585
OMP_NUM_THREADS=1 PYTHONPATH=BASE/src:BASE/tests python make.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import traceback
from pathlib import Path

HERE = Path(sys.argv[1]).resolve()
HERE.mkdir(parents=True, exist_ok=True)
os.environ["TRUEUP_CACHE"] = "cache"
os.chdir(HERE)
for name in ("model", "data", "runs", "whole", "cache", "votes", "pipeline", "scratch"):
    shutil.rmtree(name, ignore_errors=True)

from trueup.interrupt import InterruptGuard, StopRequested

import tiny_data
from tiny import tiny_folder
from trueup import loop
from trueup.config import STAGES, PipelineConfig, to_yaml
from trueup.errors import Interrupted

SMALL = {"hidden": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
LORA = {"r": 2, "alpha": 4.0}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path: str, value: object) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- inputs

tiny_folder(Path("model"), **SMALL)
for kind, count in (("conversations", 12), ("rankings", 12), ("prompts", 12), ("texts", 8)):
    tiny_data.write(Path(f"data/{kind}.jsonl"), tiny_data.rows(kind, count))
tiny_data.write(Path("data/heldout.jsonl"), [{"prompt": f"Held {n}?", "completion": f"Out {n}."} for n in range(4)])
Path("data/score.py").write_text(tiny_data.LENGTH.lstrip(), encoding="utf-8")

common = {"model": "model", "device": "cpu", "threads": 1}
mix = {"data": "data/conversations.jsonl", "weight": 0.5, "batch_size": 3}
STAGES_MADE = {
    "sft": (
        "sft",
        {
            "data": "data/conversations.jsonl",
            "optim": {"lr": 3e-3, "batch_size": 4, "steps": 12},
            "eval": {"data": "data/heldout.jsonl", "every": 4},
            "mix": {"data": {"path": "data/texts.jsonl", "use": "text"}, "batch_size": 2},
        },
    ),
    "sft-lora": (
        "sft",
        {
            "data": "data/conversations.jsonl",
            "optim": {"lr": 3e-3, "batch_size": 4, "steps": 12},
            "lora": {**LORA, "dropout": 0.2},
        },
    ),
    "dpo": ("dpo", {"data": "data/rankings.jsonl", "optim": {"lr": 3e-3, "batch_size": 4, "steps": 8}, "lora": LORA}),
    "ppo": (
        "ppo",
        {
            "prompts": "data/prompts.jsonl",
            "reward": "data/score.py:score",
            "max_length": 256,
            "lora": LORA,
            "mix": mix,
            "optim": {"lr": 3e-3, "batch_size": 4, "steps": 8},
            "kl": {"target": 1.0, "horizon": 20},
            "rollouts": {"episodes": 8, "epochs": 2, "max_new_tokens": 6, "normalize_reward": True},
        },
    ),
}
CHECKS = {"sft": 27, "sft-lora": 12, "dpo": 9, "ppo": 37}
"""The look of the loop's guard at which the run stops (it looks before every step, micro-batch and sampled token)."""


def stopped(config: object, checks: int) -> dict[str, str]:
    """Run until a stop at that look. -> what was said, and where the look was."""
    told: dict[str, str] = {}

    class Guard(InterruptGuard):
        looked = 0

        def check(self) -> None:
            self.looked += 1
            self.requested = self.looked > checks
            if self.requested:
                told.setdefault(
                    "where", " < ".join(f"{one.name}" for one in reversed(traceback.extract_stack()[-7:-1]))
                )
                raise StopRequested

    loop.InterruptGuard = Guard  # type: ignore[misc]
    try:
        tiny_data.run(config)
    except Interrupted as error:
        told["said"] = str(error).splitlines()[0]
    finally:
        loop.InterruptGuard = InterruptGuard  # type: ignore[misc]
    assert "said" in told, "it came to its end"
    return told


expected: dict[str, object] = {}
for name, (method, settings) in STAGES_MADE.items():
    config = STAGES[method].model_validate({**common, "output": f"runs/{name}", **settings})
    Path(f"{name}.yaml").write_text(to_yaml(config), encoding="utf-8")
    told = stopped(config, CHECKS[name])
    left = sorted(path.name for path in Path(f"runs/{name}/checkpoints").iterdir())
    # The whole run goes into another folder; what of it is kept are its weights and log.
    whole = config.model_copy(update={"output": Path(f"scratch/{name}")})
    tiny_data.run(whole)
    kept = Path(f"whole/{name}")
    kept.mkdir(parents=True)
    weights = "adapter/adapter_model.safetensors" if config.lora else "model/model.safetensors"
    shutil.copy(f"scratch/{name}/{weights}", kept / "weights.safetensors")
    shutil.copy(f"scratch/{name}/metrics.jsonl", kept / "metrics.jsonl")
    surroundings = json.loads(Path(f"scratch/{name}/surroundings.json").read_text())["parts"][-1]["surroundings"]
    expected[name] = {
        "method": method,
        "config": f"{name}.yaml",
        "stopped": told,
        "checkpoints": left,
        "weights": weights,
        "sha256": tiny_data.result(whole),
        "surroundings": surroundings,
    }
    for path in (Path(f"runs/{name}/.lock"), Path(f"runs/{name}/timing.jsonl")):
        path.unlink(missing_ok=True)
    print(name, told, left)
shutil.rmtree("scratch")
write_json("expected.json", expected)

from trueup.dataset.build import opened

entries = {key: opened(key) for key in sorted(path.name for path in Path("cache/tokens").iterdir())}
write_json("cache.json", {key: [len(one), one.fingerprint] for key, one in entries.items() if one})
assert all(entries.values())
os.environ["TRUEUP_CACHE"] = "scratch-cache"  # what follows need not be kept

# ---------------------------------------------------------------- a pipeline that is finished, evaluated and reported

asked = [{"id": f"p{n}", "topic": "t", "prompt": f"Number {n}?"} for n in range(6)]
tiny_data.write(Path("data/asked.jsonl"), asked)
tiny_data.write(
    Path("data/questions.jsonl"),
    [
        {"id": "a", "topic": "sums", "question": "Two and two?", "answer": "4", "accept": ["four"]},
        {"id": "b", "topic": "sums", "question": "One and one?", "choices": ["One.", "Two."], "answer": "Two."},
    ],
)
tiny_data.write(
    Path("data/heldout-rankings.jsonl"),
    [{"prompt": f"Held {n}?", "chosen": f"Good {n}.", "rejected": f"Bad, very {n}."} for n in range(4)],
)
sets = {
    "prompts": "data/asked.jsonl",
    "innocent": "data/asked.jsonl",
    "unsafe": "data/asked.jsonl",
    "capability": "data/questions.jsonl",
    "forgetting": "data/texts.jsonl",
    "data": "data/heldout-rankings.jsonl",
    "max_new_tokens": 6,
    "gold": "data/score.py:score",
}
pipeline = {
    "name": "pipeline",
    "runs": ".",
    "base": "model",
    "device": "cpu",
    "threads": 1,
    "stages": {
        "sft": {
            "method": "sft",
            "data": "data/conversations.jsonl",
            "optim": {"lr": 3e-3, "batch_size": 4, "steps": 3},
        },
        "dpo": {
            "method": "dpo",
            "from": "sft",
            "data": "data/rankings.jsonl",
            "optim": {"lr": 3e-3, "batch_size": 4, "steps": 4},
            "eval": {"data": "data/heldout-rankings.jsonl", "every": 2},
            "watch": {"samples": 2, "max_new_tokens": 4, "gold": "data/score.py:score"},
        },
    },
    "evaluate": sets,
    "gates": {"forgetting_rise": 50.0, "gold_reward_drop": 5.0, "length_growth": 3.0},
}
Path("pipeline.yaml").write_text(json.dumps(pipeline, indent=1) + "\n", encoding="utf-8")  # JSON is YAML
from trueup.console import Progress

from trueup.config import load_config
from trueup.recipes import pipeline as recipe

config = load_config(PipelineConfig, Path("pipeline.yaml"), [])
recipe.run_stages(config, Progress(quiet=True))
report = recipe.evaluate(config, Progress(quiet=True))
assert report is not None
for stage in ("sft", "dpo"):
    shutil.rmtree(f"pipeline/{stage}/checkpoints")
    for name in ("outputs.safetensors", "timing.jsonl", ".lock"):
        Path(f"pipeline/{stage}/{name}").unlink(missing_ok=True)
Path("pipeline/report.html").unlink()

# ---------------------------------------------------------------- a store of votes

from trueup.ranking.store import Answer, Ballot, NewPair, NewPrompt, Settings, Store

from trueup.chat import Message

NOW = 1_800_000_000.0

Path("votes").mkdir()
arena = [
    {
        "prompt": f"Arena {n % 4}?",
        "response_a": f"First {n % 4}.",
        "response_b": f"The second {n % 4}.",
        "model_a": "one" if n % 2 else "two",
        "model_b": "two" if n % 2 else "one",
        "winner": ["model_a", "model_b", "tie", "tie (bothbad)", "model_a"][n % 5],
        "judge": f"rater{n // 4}",
        "tstamp": 1700000000 + 60 * n,
    }
    for n in range(12)
]
tiny_data.write(Path("votes/arena.jsonl"), arena)
trueup = [sys.executable, "-m", "trueup", "rank"]
subprocess.run([*trueup, "import", "votes/votes.db", "votes/arena.jsonl"], check=True)
with Store.open("votes/votes.db") as store:
    store.configure(Settings(raters_per_pair=2, gold_every=2, seed=5))
    for number, row in enumerate(tiny_data.rows("rankings", 6)):
        prompt = NewPrompt(
            (Message("user", row["prompt"]),), ("odd",) if number % 2 else (), f"prompts.jsonl:{number + 1}"
        )
        first, second = (
            Answer(row["chosen"], "good", {"temperature": 0.5, "seed": number}),
            Answer(row["rejected"], "bad"),
        )
        store.add_pairs([NewPair(prompt, first, second, "first" if number == 3 else None)])
    store.score("reward/model", {pair.id: 0.25 * pair.id for pair in store.pairs()[:5]})
    ann, bob = store.rater("ann"), store.rater("bob")
    for turn, choice in enumerate(["first", "second", "tie", "skip", "first"]):
        for rater in (ann, bob):
            shown = store.next(rater, now=NOW)
            if shown is None:
                continue
            more = (
                {"strength": 2, "reasons": ("correct", "my own words") if turn % 2 else (), "note": "so it is"}
                if choice in ("first", "second")
                else {}
            )
            edit = {"edit": "A better answer.", "edit_of": "first"} if turn == 1 else {}
            store.vote(rater, Ballot(f"{rater.name}-{turn}", shown.pair.id, choice, seconds=1.5, **more, **edit))
    back = store.undo(ann, "ann-undo", now=NOW)
    assert back is not None
    held = store.next(bob, now=NOW)  # bob's lease stands in the store; ann's came with the undo
    facts = {
        "counts": {key: getattr(store.counts(), key) for key in store.counts().__dataclass_fields__},
        "last_event": store.last_event(),
        "votes": len(store.votes()),
        "raters": [one.name for one in store.raters()],
        "now": NOW,
        "holds": {"ann": back.ballot.pair, "bob": held and held.pair.id},
        "gold": [pair.id for pair in store.pairs() if pair.gold],
        "events": dict(
            sqlite3.connect("votes/votes.db").execute("SELECT kind, count(*) FROM events GROUP BY kind").fetchall()
        ),
        "salt": store.salt,
        "leases": sqlite3.connect("votes/votes.db").execute("SELECT count(*) FROM leases").fetchone()[0],
    }
connection = sqlite3.connect("votes/votes.db")
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
connection.close()
for extra in ("-wal", "-shm"):
    Path(f"votes/votes.db{extra}").unlink(missing_ok=True)
done = subprocess.run([*trueup, "results", "votes/votes.db", "--json"], check=True, stdout=subprocess.PIPE, text=True)
Path("votes/results.json").write_text(done.stdout, encoding="utf-8")
for name, more in {"majority": [], "every": ["--votes", "every", "--gold"], "verdicts": ["--as", "verdicts"]}.items():
    edits = ["--edits", "votes/edits.jsonl"] if name == "majority" else []
    subprocess.run([*trueup, "export", "votes/votes.db", f"votes/{name}.jsonl", *more, *edits], check=True)
write_json("votes/facts.json", facts)
print(facts)

# ---------------------------------------------------------------- no trace of this machine

for path in Path().rglob("*"):
    if (
        path.is_file()
        and path.suffix in (".json", ".jsonl", ".yaml", ".md")
        and str(HERE).encode() in path.read_bytes()
    ):
        raise SystemExit(f"{path} names this folder")
shutil.rmtree("scratch-cache")
for path in Path().rglob("__pycache__"):
    shutil.rmtree(path)
total = sum(path.stat().st_size for path in Path().rglob("*") if path.is_file())
print(f"{total / 1000:.0f} kB")
