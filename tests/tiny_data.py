"""Small files of rows, small stage configurations, and a guard that stops a run at a chosen point, for tests.

config = stage("sft", tmp_path, optim={"steps": 3})      # a tiny model, tiny rows and a run folder under tmp_path
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import warm
from tiny import tiny_folder

if TYPE_CHECKING:
    import pytest

QUESTIONS = ["Hi?", "What is two and two?", "Name a colour.", "Why?", "Who wrote this, and when?", "Is it late?"]
ANSWERS = ["Hello.", "Four.", "Blue, or green.", "Because.", "Nobody knows, it is an old story.", "No."]
WORSE = ["...", "Five, I think.", "Soup.", "Why not?", "Me.", "It may be."]


def rows(kind: str, count: int = 12) -> list[dict[str, Any]]:
    """`count` rows of a kind: conversations, rankings, labelled, prompts or texts. Lengths differ from row to row."""
    made: list[dict[str, Any]] = []
    for at in range(count):
        kth, extra = at % len(QUESTIONS), " again" * (at // len(QUESTIONS))
        asked, good, bad = QUESTIONS[kth] + extra, ANSWERS[kth] + extra, WORSE[kth]
        made.append(
            {
                "conversations": {"prompt": asked, "completion": good},
                "rankings": {"prompt": asked, "chosen": good, "rejected": bad},
                "margins": {"prompt": asked, "chosen": good, "rejected": bad, "margin": 0.5 * kth},
                "labelled": {"prompt": asked, "completion": bad if at % 3 == 0 else good, "label": at % 3 != 0},
                "prompts": {"prompt": asked},
                "texts": {"text": f"{asked} {good}"},
            }[kind]
        )
    return made


def write(path: Path, made: list[dict[str, Any]]) -> str:
    """JSON lines. -> the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return str(path)


def data(folder: Path, kind: str, count: int = 12) -> str:
    """A file of `count` rows of a kind in the folder, written unless it is there."""
    path = folder / f"{kind}-{count}.jsonl"
    return str(path) if path.exists() else write(path, rows(kind, count))


LENGTH = """
def score(conversations):
    return [len(one.response) / 10 for one in conversations]
"""


def reward_function(folder: Path, source: str = LENGTH) -> str:
    """A file with the function `score`. -> file.py:score."""
    path = folder / "score.py"
    path.write_text(source, encoding="utf-8")
    return f"{path}:score"


LORA = {"r": 4, "alpha": 8.0}
KIND = {"sft": "conversations", "reward": "rankings", "dpo": "rankings", "ppo": "prompts"}
OWN: dict[str, dict[str, Any]] = {
    "ppo": {"rollouts": {"episodes": 8, "epochs": 2, "max_new_tokens": 6}, "max_length": 256},
}


def merged(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Both; sections are merged key by key, the second wins."""
    both = {**ours, **theirs}
    return both | {
        key: merged(ours[key], theirs[key])
        for key in ours
        if isinstance(ours[key], dict) and isinstance(theirs.get(key), dict)
    }


def stage(method: str, folder: Path, output: str = "run", **settings: Any) -> Any:
    """A stage's configuration over the tiny model: everything it names lies in `folder`, the run in `folder/output`."""
    from trueup.config import STAGES

    folder.mkdir(parents=True, exist_ok=True)
    base: dict[str, Any] = {
        "model": tiny_folder(folder / "base"),
        "output": str(folder / output),
        "optim": {"lr": 3e-3, "batch_size": 4},
        "device": "cpu",
        "threads": 1,
    }
    if "steps" not in settings.get("optim", {}) and "epochs" not in settings.get("optim", {}):
        base["optim"]["steps"] = 4
    if not set(STAGES[method].data_fields) & set(settings):
        base[STAGES[method].data_fields[0]] = data(folder, KIND[method])
    if method == "ppo" and "reward" not in settings:
        base["reward"] = reward_function(folder)
    return STAGES[method].model_validate(merged(merged(base, OWN.get(method, {})), settings))


def run(config: Any) -> dict[str, Any]:
    """Run the stage. -> its summary."""
    return importlib.import_module(f"trueup.recipes.{config.method}").run(config)


def metrics(config: Any) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (Path(config.output) / "metrics.jsonl").read_text().splitlines()]


def result(config: Any) -> dict[str, str]:
    """What a run must repeat to the bit: sha256 of exported weights, logs, samples, last checkpoint."""
    folder = Path(config.output)
    logs = ("metrics.jsonl", "samples.jsonl", "watch.jsonl", "alarms.jsonl")
    names = ("model/model.safetensors", "adapter/adapter_model.safetensors", *logs)
    paths = {name: folder / name for name in names}
    last = max((folder / "checkpoints").glob("step-*"), default=None)
    paths |= {f"last/{path.name}": path for path in last.glob("*.*")} if last else {}
    return {name: _sha256(path) for name, path in paths.items() if path.exists() and path.name != "manifest.json"}


def _sha256(path: Path) -> str:
    """Of a file; of a .json its keys in any order, as a restored state may have another one."""
    content = path.read_bytes()
    if path.suffix == ".json":
        content = json.dumps(json.loads(content), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def stop_after(checks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop's next guard ask for a stop at its `checks`-th look: between steps, or anywhere inside of one."""
    from trueup.system.interrupt import InterruptGuard, StopRequested
    from trueup.training import loop

    class Guard(InterruptGuard):
        looked = 0

        def check(self) -> None:
            self.looked += 1
            self.requested = self.looked > checks
            if self.requested:
                raise StopRequested

    monkeypatch.setattr(loop, "InterruptGuard", Guard)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_processes(arguments: list[str], world: int = 2, **options: Any) -> list[subprocess.Popen[str]]:
    """Start `python arguments...` as a group of `world` processes on this machine, as torchrun would; one is alone.

    They are forks of the warm process, but for a launcher, which starts processes of its own.
    """
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    env = os.environ | {"OMP_NUM_THREADS": "1"} | (group if world > 1 else {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    popen = subprocess.Popen if arguments[:2] == ["-m", "torch.distributed.run"] else warm.Popen
    return [
        popen(
            [sys.executable, *arguments],
            env=env | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}),
            **(pipes | options),
        )
        for rank in range(world)
    ]


def finish_processes(processes: list[subprocess.Popen[str]], code: int = 0, timeout: float = 300) -> list[str]:
    """Wait for all; -> what each printed. One that does not end is killed, and the test fails."""
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == code, output[-3000:]
    return outputs


def account(config: Any, name: str = "data") -> dict[str, Any]:
    """The account of a data section in data.json, checked to add up and to stand in summary.json too."""
    folder = Path(config.output)
    counts: dict[str, Any] = json.loads((folder / "data.json").read_text())[name]
    assert json.loads((folder / "summary.json").read_text())["data"][name] == counts
    left_out = len(counts["dropped"]) + counts["unselected"] + counts.get("over_length", {"count": 0})["count"]
    assert counts["read"] == counts["used"] + left_out
    return counts


def networks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collects the network of every stage that trains from now on."""
    from trueup.recipes.stage import Stage

    seen: list[Any] = []
    fit = Stage.fit

    def remembering(self: Stage, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.network)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(Stage, "fit", remembering)
    return seen


def run_stopped(config: Any, checks: int) -> str:
    """Run the stage until a stop at its `checks`-th look. -> what was said, "" if it came to its end before."""
    import pytest

    from trueup.errors import Interrupted

    with pytest.MonkeyPatch.context() as patch:
        stop_after(checks, patch)
        try:
            run(config)
        except Interrupted as error:
            return str(error)
    return ""
