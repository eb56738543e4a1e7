"""The loop: one gradient whatever the micro-batches and processes, schedule, clipping, early stopping, faults."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny_data
from tiny import lora, tiny_network
from trueup.config import OptimConfig, to_yaml
from trueup.data.rendering.messages import Message
from trueup.data.tokens.sampler import Sampler
from trueup.errors import CheckpointError, TrainingError
from trueup.models.batching import Batch, Example, collate, single
from trueup.models.network import Network
from trueup.runs.checkpoint import RunFolder, latest_checkpoint, save_checkpoint
from trueup.system.console import Progress
from trueup.training import objectives
from trueup.training.loop import Fit, Fitted, fit
from trueup.training.optimizer import learning_rate, make_optimizer
from trueup.training.terms import Evaluation, RowSource, Term

Metrics = dict[str, Tensor]


# ------------------------------------------------------------------ micro-batches and processes do not matter


MIX = {"weight": 0.5, "batch_size": 3}
STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft-mix": ("sft", {"mix": MIX}),
    "reward": ("reward", {"loss": {"center": 0.1}}),
    "dpo": ("dpo", {"loss": {"name": "sigmoid", "beta": 0.5}}),
    "dpo-lora-mix": ("dpo", {"loss": {"name": "simpo"}, "lora": tiny_data.LORA, "mix": MIX}),
    "kto": ("dpo", {"loss": {"name": "kto", "beta": 0.5}}),
    "ppo": ("ppo", {"kl": {"coef": 0.2, "apply": "loss"}, "rollouts": {"entropy_coef": 0.01}}),
    "ppo-lora-mix": ("ppo", {"lora": tiny_data.LORA, "mix": MIX}),
}


def stage(name: str, folder: Path, output: str, **settings: Any) -> Any:
    method, own = STAGES[name]
    own = tiny_data.merged(own, settings)
    if "mix" in own:
        own = tiny_data.merged(own, {"mix": {"data": tiny_data.data(folder, "conversations", 7)}})
    return tiny_data.stage(method, folder, output, **own)


def same_logs(ours: list[dict[str, float]], theirs: list[dict[str, float]], losses: float) -> None:
    """Losses to within `losses`; sums of log-probabilities are hundreds of nats, and float32 has seven digits."""
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert list(one) == list(other)
        for key, value in one.items():
            tolerance = losses if key.endswith("loss") else 1e-3
            assert other[key] == pytest.approx(value, abs=tolerance, rel=tolerance), (one["step"], key)


@pytest.mark.parametrize("name", STAGES)
def test_the_size_of_micro_batches_changes_nothing(name: str, tmp_path: Path) -> None:
    """One row at a time against all at once, over several AdamW steps: losses, gradient norms and every metric."""
    logs = []
    for max_tokens in (1, 100_000):
        config = stage(name, tmp_path, f"run-{max_tokens}", max_tokens=max_tokens, optim={"steps": 5})
        tiny_data.run(config)
        logs.append(tiny_data.metrics(config))
    same_logs(*([row for row in log if row["step"] <= 1] for log in logs), 1e-6)
    # AdamW divides small gradients by their own size: what rounding is left grows from then on, on some processors.
    same_logs(*logs, 1e-5)


TWO = """
import sys
import torch
from pathlib import Path
from trueup import sampling
from trueup.recipes import rollouts, stage
from trueup.config import STAGES, load_config
import importlib, os

torch.set_num_threads(1)
greedy = lambda *args, temperature, **kwargs: sampling.sample(*args, temperature=0.0, **kwargs)
rollouts.sample = greedy if "--greedy" in sys.argv else sampling.sample
finish = stage.Stage.finish

def finish_and_tell(self, fitted, role, *args):
    state = torch.cat([one.detach().flatten() for _, one in self.network.trainable()])
    torch.save(state, self.run.path / f"rank-{os.environ['RANK']}.pt")
    return finish(self, fitted, role, *args)

stage.Stage.finish = finish_and_tell
for path in [one for one in sys.argv[1:] if one.endswith(".yaml")]:
    method = Path(path).name.partition("-")[0]
    importlib.import_module(f"trueup.recipes.{method}").run(load_config(STAGES[method], Path(path)))
from trueup import runtime
runtime.shutdown()
"""


TOGETHER = ("sft-mix", "dpo-lora-mix", "ppo-lora-mix")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two processes have run three stages, sampling greedily: what they sample is then shared out
    among them without changing it."""
    folder = tmp_path_factory.mktemp("two")
    paths = []
    for name in TOGETHER:
        config = stage(name, folder, f"two-{name}", optim={"steps": 8})
        paths.append(folder / f"{config.method}-{name}.yaml")
        paths[-1].write_text(to_yaml(config), encoding="utf-8")
    tiny_data.finish_processes(tiny_data.start_processes(["-c", TWO, "--greedy", *map(str, paths)]))
    return folder


@pytest.mark.parametrize("name", TOGETHER)
def test_two_processes_learn_what_one_does(name: str, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trueup import sampling
    from trueup.recipes import rollouts

    monkeypatch.setattr(
        rollouts, "sample", lambda *args, temperature, **kwargs: sampling.sample(*args, temperature=0.0, **kwargs)
    )
    config = stage(name, two, f"one-{name}", optim={"steps": 8})
    tiny_data.run(config)
    log = [json.loads(line) for line in (two / f"two-{name}" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == list(range(1, 9))
    same_logs(tiny_data.metrics(config), log, 1e-5)


@pytest.mark.parametrize("name", TOGETHER)
def test_the_processes_stay_in_step(name: str, two: Path) -> None:
    weights = [torch.load(two / f"two-{name}" / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert torch.equal(*weights)


def test_only_the_first_process_writes(two: Path) -> None:
    one = two / "two-ppo-lora-mix" / "samples.jsonl"
    rows = [json.loads(line) for line in one.read_text().splitlines()]
    # Twelve prompts in rollouts of 8 and 4 episodes, two epochs of each in steps of 4; four episodes of each are shown.
    assert [row["step"] for row in rows] == [step for step in (1, 5, 7) for _ in range(4)]


# ------------------------------------------------------------------ a loop by hand


def examples(network: Network, count: int = 8) -> list[Example]:
    rows = tiny_data.rows("conversations", count)
    made = [(Message("user", row["prompt"]), Message("assistant", row["completion"])) for row in rows]
    return [single(network.renderer.conversation(one), row=at) for at, one in enumerate(made)]


class Bench:
    """A network with a policy, a run folder, and `fit` over both."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.config = tiny_data.stage("sft", folder, **settings)
        self.network = tiny_network(self.config.model)
        torch.manual_seed(0)
        self.network.add_trainable("policy", self.config.lora)
        self.run = RunFolder.create(self.config.output, to_yaml(self.config))
        sampler = Sampler(8, self.config.optim.batch_size, 0)
        rows = examples(self.network)
        self.source = RowSource(rows, sampler, self.network, per="token", max_tokens=self.config.max_tokens)

    def terms(self, objective: Callable[[Network, Batch], tuple[Tensor, Metrics]] = objectives.sft) -> list[Term]:
        return [Term("sft", self.source, objective)]

    def state(self, objective: Callable[[Network, Batch], tuple[Tensor, Metrics]] = objectives.sft) -> Fit:
        return Fit(
            self.network, self.terms(objective), self.config, self.config.optim.steps, self.run,
            evaluation=None, progress=Progress(quiet=True), loggers=(), headline=(),
        )  # fmt: skip

    def fit(self, terms: list[Term] | None = None, evaluation: Evaluation | None = None) -> Fitted:
        try:
            return fit(
                self.network, terms or self.terms(), config=self.config, steps=self.config.optim.steps, run=self.run,
                progress=Progress(quiet=True), evaluation=evaluation,
            )  # fmt: skip
        finally:
            self.run.close()

    def weights(self) -> dict[str, Tensor]:
        return {name: one.detach().clone() for name, one in self.network.trainable()}


def schedule(steps: int, **settings: Any) -> list[float]:
    optim = OptimConfig(lr=1.0, **settings)
    return [learning_rate(step, steps, optim) for step in range(steps)]


def test_the_learning_rate() -> None:
    assert schedule(4, warmup=0, schedule="constant") == [1, 1, 1, 1]
    assert schedule(4, warmup=0, schedule="linear") == [1, 0.75, 0.5, 0.25]
    assert schedule(6, warmup=2, schedule="linear") == [0.5, 1, 1, 0.75, 0.5, 0.25]
    cosine = [0.5 * (1 + math.cos(math.pi * part)) for part in (0, 0.25, 0.5, 0.75)]
    assert schedule(4, warmup=0, schedule="cosine") == pytest.approx(cosine)
    assert schedule(8, warmup=0.5, schedule="cosine") == pytest.approx([0.25, 0.5, 0.75, 1, *cosine])
    assert schedule(10, warmup=0.05, schedule="constant") == [1] * 10  # half a step rounds to none
    assert schedule(3, warmup=3, schedule="cosine") == pytest.approx([1 / 3, 2 / 3, 1])
    assert schedule(2, warmup=5, schedule="linear") == [0.2, 0.4]


def test_the_rate_in_the_log_is_the_one_that_was_used(tmp_path: Path) -> None:
    """With a rate of 0 in the last place of a schedule nothing moves; the log says the rate of each step."""
    bench = Bench(tmp_path, optim={"steps": 4, "schedule": "linear", "warmup": 0})
    state = bench.state()
    rates = []
    for _ in range(4):
        row = state.stepper.take(state.step, lambda: None)
        rates.append((row["lr"], state.stepper.optimizer.param_groups[0]["lr"]))
        state.step += 1
    assert rates == [(pytest.approx(3e-3 * part),) * 2 for part in (1, 0.75, 0.5, 0.25)]


def test_the_gradient_is_clipped_to_its_norm_and_the_log_has_it_unclipped(tmp_path: Path) -> None:
    def norm_and_gradient(clip: float) -> tuple[float, Tensor]:
        bench = Bench(tmp_path / str(clip), optim={"steps": 1, "clip": clip})
        row = bench.state().stepper.take(0, lambda: None)
        return row["grad_norm"], torch.cat(
            [one.grad.flatten() for _, one in bench.network.trainable() if one.grad is not None]
        )

    loose, whole = norm_and_gradient(1e9)
    tight, clipped = norm_and_gradient(0.01)
    assert loose == pytest.approx(tight)
    assert loose == pytest.approx(float(whole.norm()), rel=1e-5)
    assert float(clipped.norm()) == pytest.approx(0.01, rel=1e-3)
    assert torch.allclose(clipped / clipped.norm(), whole / whole.norm(), atol=1e-5)


def test_weight_decay_is_for_matrices(tmp_path: Path) -> None:
    network = Bench(tmp_path).network
    decayed, spared = make_optimizer(network, OptimConfig(lr=1e-3, weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert all(one.ndim >= 2 for one in decayed["params"])
    assert all(one.ndim == 1 for one in spared["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(network.trainable()))


def test_an_optimizer_of_nothing(tmp_path: Path) -> None:
    network = tiny_network(tmp_path / "base")
    with pytest.raises(TrainingError, match="nothing trains"):
        make_optimizer(network, OptimConfig(lr=1e-3))


def test_the_loss_falls(tmp_path: Path) -> None:
    bench = Bench(tmp_path, optim={"steps": 30, "lr": 1e-2})
    bench.fit()
    log = tiny_data.metrics(bench.config)
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]


def test_a_term_of_weight_two_pulls_twice(tmp_path: Path) -> None:
    gradients = []
    for weight in (1.0, 2.0):
        bench = Bench(tmp_path / str(weight), optim={"steps": 1, "clip": 1e9})
        state = bench.state()
        state.stepper.terms = [Term("sft", bench.source, objectives.sft, weight)]
        row = state.stepper.take(0, lambda: None)
        assert row["loss"] == pytest.approx(weight * row["sft/loss"])
        gradients.append(row["grad_norm"])
    assert gradients[1] == pytest.approx(2 * gradients[0], rel=1e-5)


# ------------------------------------------------------------------ metrics


def test_metrics_are_means_over_all_items_not_means_of_means(tmp_path: Path) -> None:
    """Micro-batches of different sizes, and a metric that some of them lack."""
    bench = Bench(tmp_path, max_tokens=120, optim={"steps": 1, "batch_size": 7})
    seen: list[tuple[int, list[int]]] = []

    def objective(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        values, _ = objectives.sft(network, batch)
        seen.append((batch.branches, batch.targets.tolist()))
        metrics = {"target": batch.targets.float(), "pair": batch.lengths}
        return values, metrics if batch.branches > 1 else {"target": batch.targets.float()}

    row = bench.state(objective).stepper.take(0, lambda: None)
    assert len({branches for branches, _ in seen}) > 1  # uneven, or this test says nothing
    targets = [target for _, some in seen for target in some]
    assert row["sft/target"] == pytest.approx(sum(targets) / len(targets))
    more = [(branches, some) for branches, some in seen if branches > 1]
    assert row["sft/pair"] == pytest.approx(sum(len(some) for _, some in more) / sum(count for count, _ in more))


def test_the_loss_is_the_mean_over_the_steps_tokens(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_tokens=60, optim={"steps": 1, "batch_size": 8})
    row = bench.state().stepper.take(0, lambda: None)
    batch = collate(examples(bench.network), per="token", pad_id=0)
    with torch.no_grad():
        fresh = Bench(tmp_path / "fresh")
        assert row["loss"] == pytest.approx(-float(fresh.network.logps(batch).mean()), rel=1e-6)
    assert row["tokens"] == batch.tokens


def test_the_numbers_of_the_last_step_and_its_evaluation_are_reported(tmp_path: Path) -> None:
    bench = Bench(tmp_path, optim={"steps": 3})
    fitted = bench.fit(evaluation=Evaluation(lambda _: {"loss": 7.0}, None, None, "loss"))
    log = tiny_data.metrics(bench.config)
    assert [row["step"] for row in log] == [0, 1, 2, 3]
    assert ["eval/loss" in row for row in log] == [True, False, False, True]
    assert fitted.last == log[-1]
    assert (fitted.steps, fitted.tokens) == (3, sum(row["tokens"] for row in log[1:]))


def test_a_finished_run_that_is_started_again_trains_nothing_and_reports_the_same(tmp_path: Path) -> None:
    first = Bench(tmp_path, optim={"steps": 3})
    done = first.fit(evaluation=Evaluation(lambda _: {"loss": 7.0}, None, None, "loss"))
    log = first.run.metrics_path.read_bytes()
    again = Bench(tmp_path, optim={"steps": 3})
    repeated = again.fit(evaluation=Evaluation(lambda _: {"loss": 7.0}, None, None, "loss"))
    assert (repeated.last, repeated.tokens) == (done.last, 0)
    assert again.run.metrics_path.read_bytes() == log
    for name, weight in again.weights().items():
        assert torch.equal(weight, first.weights()[name])


# ------------------------------------------------------------------ early stopping


class Scripted:
    """An evaluation with given values, which remembers the weights it was asked about."""

    def __init__(self, bench: Bench, values: list[float]) -> None:
        self.bench, self.values, self.seen = bench, values, list[dict[str, Tensor]]()

    def __call__(self, step: int) -> dict[str, float]:
        assert step == 2 * len(self.seen)
        self.seen.append(self.bench.weights())
        return {"score": self.values[len(self.seen) - 1]}


def differ(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return any(not torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("better", "sign"), [("lower", 1), ("higher", -1)])
def test_early_stopping_restores_the_best_weights(better: Any, sign: int, tmp_path: Path) -> None:
    bench = Bench(tmp_path, optim={"steps": 20})
    values = [sign * value for value in (5.0, 3.0, 4.0, 2.0, 2.0, 9.0)]
    script = Scripted(bench, values)
    fitted = bench.fit(evaluation=Evaluation(script, 2, 2, "score", better))
    assert (fitted.steps, fitted.stopped_early) == (10, True)  # best at step 6, no better at 8 and 10
    assert not differ(bench.weights(), script.seen[3])
    assert differ(bench.weights(), script.seen[5])


def test_without_patience_the_last_weights_stay(tmp_path: Path) -> None:
    bench = Bench(tmp_path, optim={"steps": 4})
    script = Scripted(bench, [1.0, 2.0, 3.0])
    fitted = bench.fit(evaluation=Evaluation(script, 2, None, "score"))
    assert (fitted.steps, fitted.stopped_early) == (4, False)
    assert not differ(bench.weights(), script.seen[-1])


def test_a_measurement_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    """Neither does it push out the best checkpoint, nor begin the count of misses anew; but any number beats it."""
    held_out = {"data": tiny_data.data(tmp_path, "conversations", 5)}
    save = {"every": 100, "keep_last": 1, "keep_best": True}
    bench = Bench(tmp_path, optim={"steps": 8}, save=save, eval=held_out)
    script = Scripted(bench, [math.nan, 1.0, math.nan, math.nan])
    fitted = bench.fit(evaluation=Evaluation(script, 2, 2, "score"))
    assert (fitted.steps, fitted.stopped_early) == (6, True)
    assert sorted(path.name for path in bench.run.checkpoints.iterdir()) == ["step-000002", "step-000006"]
    assert not differ(bench.weights(), script.seen[1])


def test_a_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    first = Bench(tmp_path, optim={"steps": 20})
    first.fit(evaluation=Evaluation(Scripted(first, [1.0, 2.0, 3.0]), 2, 2, "score"))
    again = Bench(tmp_path, optim={"steps": 20})
    fitted = again.fit(evaluation=Evaluation(Scripted(again, []), 2, 2, "score"))
    assert (fitted.steps, fitted.stopped_early) == (4, True)
    assert not differ(again.weights(), first.weights())


# ------------------------------------------------------------------ faults


class Spoiled:
    """SFT whose loss is `bad` in the given optimizer steps (of one micro-batch each); keeps the weights before each."""

    def __init__(self, bench: Bench, bad: float, steps: set[int], *, gradient_only: bool = False) -> None:
        self.bench, self.bad, self.steps, self.gradient_only = bench, bad, steps, gradient_only
        self.before: list[dict[str, Tensor]] = []
        self.rows: list[list[int]] = []

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        values, metrics = objectives.sft(network, batch)
        self.before.append(self.bench.weights())
        self.rows.append(batch.rows)
        if len(self.before) not in self.steps:
            return values, metrics
        if not self.gradient_only:
            return values * self.bad, metrics
        values.register_hook(lambda gradient: gradient * self.bad)
        return values, metrics


@pytest.mark.parametrize("gradient_only", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_left_out_and_counted(bad: float, gradient_only: bool, tmp_path: Path) -> None:
    """Weights and moments stay as they were; the next step is as if the bad one had had no gradient."""
    bench = Bench(tmp_path, optim={"steps": 6})
    spoiled = Spoiled(bench, bad, {3, 4, 6}, gradient_only=gradient_only)
    fitted = bench.fit(bench.terms(spoiled))
    assert (fitted.steps, fitted.skipped_steps) == (6, 3)
    assert not differ(spoiled.before[2], spoiled.before[3])
    assert not differ(spoiled.before[2], spoiled.before[4])
    assert differ(spoiled.before[4], spoiled.before[5])
    log = tiny_data.metrics(bench.config)
    assert [row.get("skipped") for row in log] == [None, None, 1.0, 1.0, None, 1.0]
    checkpoint = latest_checkpoint(bench.run)
    assert checkpoint is not None
    moments = checkpoint.part("optimizer")
    assert {float(one["step"]) for one in moments.values()} == {3.0}


def test_too_many_bad_steps_in_a_row_stop_the_run_and_name_the_rows(tmp_path: Path) -> None:
    bench = Bench(tmp_path, optim={"steps": 9, "bad_steps": 2, "batch_size": 2}, save={"every": 1})
    spoiled = Spoiled(bench, math.nan, {3, 5, 6, 7})
    with pytest.raises(TrainingError) as met:
        bench.fit(bench.terms(spoiled))
    first, second = (f"row {row + 1}" for row in spoiled.rows[5])
    message = str(met.value)
    assert message.startswith("step 6: the loss is nan, the gradient's norm nan, and 2 steps in a row were left out")
    assert f"rows: {first}, {second}\n" in message
    assert "optim.lr" in message
    assert not differ(bench.weights(), spoiled.before[4])
    checkpoint = latest_checkpoint(bench.run)
    assert checkpoint is not None
    assert checkpoint.step == 5
    assert not differ(bench.weights(), checkpoint.part("weights"))


def test_bad_steps_in_a_row_are_counted_over_a_resume(tmp_path: Path) -> None:
    optim = {"steps": 3, "bad_steps": 2}
    bench = Bench(tmp_path, optim=optim, save={"every": 1})
    spoiled = Spoiled(bench, math.nan, {2})

    def dying(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        if len(spoiled.before) == 2:
            raise MemoryError
        return spoiled(network, batch)

    with pytest.raises(MemoryError):
        bench.fit(bench.terms(dying))
    again = Bench(tmp_path, optim=optim)
    with pytest.raises(TrainingError, match=r"step 3: .* 2 steps in a row"):
        again.fit(again.terms(Spoiled(again, math.nan, {1})))


def test_the_best_checkpoint_is_saved_when_it_is_measured_and_kept(tmp_path: Path) -> None:
    """The best of the measurements at 0, 2, 4, 6, 8 is that of step 4: two newer checkpoints do not push it out."""
    held_out = {"data": tiny_data.data(tmp_path, "conversations", 5)}
    save = {"every": 3, "keep_last": 1, "keep_best": True}
    bench = Bench(tmp_path, optim={"steps": 8}, save=save, eval=held_out)
    bench.fit(evaluation=Evaluation(Scripted(bench, [3.0, 2.0, 1.0, 1.5, 1.4]), 2, None, "score"))
    assert sorted(path.name for path in bench.run.checkpoints.iterdir()) == ["step-000004", "step-000008"]


def test_a_sealed_checkpoint_that_is_not_ours_is_refused_in_words(tmp_path: Path) -> None:
    """Its manifest agrees with every byte, but a part lacks what this version saves."""
    bench = Bench(tmp_path, optim={"steps": 4}, save={"every": 2})
    state = bench.state().state()
    state["trainer"].pop("stepper")
    save_checkpoint(bench.run, 2, state)
    with pytest.raises(CheckpointError, match=r"(?s)step-000002: what it holds is not what .*KeyError.*fix: remove it"):
        bench.fit()


def test_memory_that_runs_out_while_a_run_is_resumed_is_said_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bench(tmp_path, optim={"steps": 2}).fit()

    def full(_: Fit, __: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Fit, "restore", full)
    with pytest.raises(torch.OutOfMemoryError):
        Bench(tmp_path, optim={"steps": 2}).fit()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    Bench(tmp_path, optim={"steps": 2}).fit()
    other = Bench(tmp_path, optim={"steps": 2})
    other.network = tiny_network(other.config.model)
    other.network.add_trainable("policy", lora())
    with pytest.raises(CheckpointError, match="its weights are not this model's"):
        other.fit()
