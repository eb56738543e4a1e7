"""Every task on tiny models: an identical model differs in nothing, another one does, what is missing is said."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_data
from tiny import shake, tiny_folder, tiny_network
from trueup import runtime
from trueup.cli import compare as comparison
from trueup.config import ComparisonConfig, EvaluateConfig
from trueup.data.prompts import PromptRow
from trueup.errors import ConfigError, DataError, TrainingError
from trueup.evaluation import suite, tasks
from trueup.evaluation.items import Item, of_task, read_header, read_items, write_items
from trueup.evaluation.plan import PLAN_FILE, Plan
from trueup.evaluation.policy import Sampling, means, measure_policy
from trueup.models.batching import Branch, Example
from trueup.models.forward import token_kls
from trueup.report.build import build
from trueup.report.report_schema import Measure, Report

QUESTIONS = [
    {"id": "a", "topic": "sums", "question": "Two and two?", "answer": "4", "accept": ["four"]},
    {"id": "b", "topic": "sums", "question": "One and one?", "choices": ["One.", "Two."], "answer": "Two."},
    {"id": "c", "topic": "words", "question": "A colour?", "choices": ["Blue.", "Soup.", "Why?"], "answer": "Blue."},
]
ASKED = [{"id": f"p{index}", "topic": "t", "prompt": f"Number {index}?"} for index in range(12)]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, which take a second each: tests/report looks at those."""
    monkeypatch.setattr("trueup.report.page.pictures", lambda _: ([], []))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a copy of it under another name, another model, a reward model, and small sets."""
    folder = tmp_path_factory.mktemp("suite")
    tiny_folder(folder / "base")
    tiny_folder(folder / "copy")
    tiny_folder(folder / "other", seed=7)
    tiny_data.run(tiny_data.stage("reward", folder, "rm", optim={"steps": 10, "lr": 1e-2}))
    tiny_data.data(folder, "rankings", 12)
    tiny_data.data(folder, "texts", 6)
    tiny_data.write(folder / "questions.jsonl", QUESTIONS)
    tiny_data.write(folder / "asked.jsonl", ASKED)
    return folder


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    asked = str(folder / "asked.jsonl")
    sets = {"prompts": asked, "innocent": asked, "unsafe": asked, "capability": str(folder / "questions.jsonl")}
    rest = {"forgetting": str(folder / "texts-6.jsonl"), "data": str(folder / "rankings-12.jsonl"), "max_new_tokens": 8}
    return {**sets, **rest, **changes}


def plan(folder: Path, out: Path, *names: str, reward: str | None = "rm", **changes: Any) -> Plan:
    config = EvaluateConfig.model_validate(settings(folder, **changes))
    models = {name: str(folder / name) for name in names}
    return Plan(out, models, names[0], config, reward=str(folder / reward) if reward else None)


def measured(one: Plan, note: Callable[[str], None] = lambda _: None) -> Report:
    suite.measure(one, runtime.init("cpu", threads=1), note)
    return build(one.folder)


def table(report: Report) -> dict[str, Measure]:
    return {one.key: one for one in report.measures}


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The base against a copy of itself and another model."""
    return measured(plan(folder, tmp_path_factory.mktemp("out"), "base", "copy", "other"))


def test_an_identical_model_differs_in_nothing(report: Report) -> None:
    for measure in report.measures:
        if measure.key not in ("win-rate", "win-rate-lc", "kl", "kl-sampled", "preferences"):
            assert measure.values["base"] == measure.values["copy"], measure.key
            assert not measure.differences["copy"].shown if measure.differences.get("copy") else True
    rows = table(report)
    assert rows["kl"].values["copy"].value == pytest.approx(0, abs=1e-5)
    assert rows["win-rate"].values["copy"].value == 0.5  # ties are halves
    assert rows["win-rate"].values["copy"].low < 0.5 < rows["win-rate"].values["copy"].high
    for sample in report.samples:
        assert sample.answers["base"].text == sample.answers["copy"].text


def test_another_model_has_a_distance_and_a_number_in_every_row(report: Report) -> None:
    rows = table(report)
    expected = {"capability", "over-refusal", "unsafe-compliance", "forgetting", "reward", "win-rate", "win-rate-lc"}
    expected |= {"preferences", "kl", "kl-sampled", "length", "ended", "repetition", "entropy", "distinct-2"}
    assert set(rows) == expected
    assert all("other" in row.values for row in rows.values())
    assert rows["kl"].values["other"].low > 1  # far outside of zero
    exact, sampled = rows["kl"].values["other"], rows["kl-sampled"].values["other"]
    assert sampled.low < exact.value < sampled.high
    assert exact.high - exact.low < sampled.high - sampled.low
    assert "base" not in rows["kl"].values  # its KL from itself is no measurement
    assert "base" not in rows["win-rate"].values
    assert "base" not in rows["preferences"].values
    counts = {key: row.values["other"].n for key, row in rows.items()}
    assert counts["capability"] == 3
    assert counts["preferences"] == 12
    assert counts["forgetting"] == 6
    assert {counts[key] for key in ("kl", "over-refusal", "unsafe-compliance", "reward", "win-rate")} == {12}
    assert [topic.topic for topic in rows["capability"].topics] == ["sums", "words"]


def test_every_number_has_its_interval(report: Report) -> None:
    for measure in report.measures:
        for one in [*measure.values.values(), *measure.differences.values()]:
            assert one.low <= one.value <= one.high, measure.key
            assert one.n > 0


def test_unsafe_prompts_are_complied_with_or_refused(report: Report) -> None:
    rows = table(report)
    # The same prompts were used for both sets.
    assert rows["unsafe-compliance"].values["other"].value == 1 - rows["over-refusal"].values["other"].value
    assert (rows["over-refusal"].note or "").startswith("by rules: missed ")


def test_the_reward_models_own_accuracy(report: Report) -> None:
    card = report.reward_model
    assert card is not None
    assert card.accuracy.n == 12
    assert card.accuracy.value > 0.8  # it was trained on these very rows
    assert card.chosen_longer is not None
    assert card.chosen_shorter is not None
    assert card.chosen_longer.n + card.chosen_shorter.n <= 12


def test_multiple_choice_is_the_likeliest_choice_by_an_independent_computation(folder: Path, tmp_path: Path) -> None:
    """Log-probability of each choice with its end token, by transformers' own logits, a byte of text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    one = plan(folder, tmp_path, "other", reward=None, tasks=["capability"])
    measured(one)
    items = {item.id.partition("#")[0]: item for item in read_items(one.file("other"))}
    model = AutoModelForCausalLM.from_pretrained(folder / "other").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "other")
    for question in QUESTIONS[1:]:
        scores = []
        talk = [{"role": "user", "content": question["question"]}]
        prompt = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
        for choice in question["choices"]:
            start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            ids = start + tokenizer(f"{choice}<|im_end|>", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logps = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
            targets = torch.tensor(ids[1:])
            summed = logps.gather(-1, targets[:, None])[len(start) - 1 :].sum()
            scores.append(float(summed) / len(choice))
        best = question["choices"][scores.index(max(scores))]
        assert items[question["id"]].answer == best
        assert items[question["id"]].values["right"] == float(best == question["answer"])


@pytest.mark.parametrize(
    ("changes", "absent", "notes"),
    [
        ({"data": None}, {"preferences"}, "no held-out rankings; set evaluate.data"),
        ({"reward": None}, {"reward", "win-rate"}, "no reward model among the stages; set evaluate.reward"),
        ({"tasks": ["capability"]}, {"kl", "forgetting", "over-refusal"}, "not among evaluate.tasks"),
    ],
)
def test_missing_measurements_are_absent_with_a_reason(
    changes: dict[str, Any], absent: set[str], notes: str, folder: Path, tmp_path: Path
) -> None:
    report = measured(plan(folder, tmp_path, "base", "copy", **({"limit": 2, "samples": 2} | changes)))
    assert not absent & set(table(report))
    assert notes in {one.why for one in report.not_measured}


def test_gold_decides_wins_before_the_proxy(folder: Path, tmp_path: Path) -> None:
    gold = tiny_data.reward_function(tmp_path, "def score(talks): return [float(len(t.response) % 2) for t in talks]")
    config = EvaluateConfig.model_validate(settings(folder, tasks=["answers", "win-rate"]))
    models = {name: str(folder / name) for name in ("base", "other")}
    one = Plan(tmp_path, models, "base", config, reward=str(folder / "rm"), gold=gold)
    report = measured(one)
    assert read_header(one.wins_file("other"))["judge"] == "gold"
    ours, theirs = (of_task(read_items(one.file(name)), "answers", "gold") for name in ("other", "base"))
    expected = [1.0 if ours[key] > theirs[key] else 0.5 if ours[key] == theirs[key] else 0.0 for key in ours]
    assert table(report)["win-rate"].values["other"].value == pytest.approx(sum(expected) / len(expected))
    assert "gold" in table(report)


def test_a_model_that_was_measured_is_not_measured_again(folder: Path, tmp_path: Path) -> None:
    one, notes = plan(folder, tmp_path, "base", "other", limit=2, samples=3), list[str]()
    first = measured(one)
    stamp = one.file("other").stat().st_mtime_ns
    second = measured(one, notes.append)
    assert one.file("other").stat().st_mtime_ns == stamp
    assert sum("was measured before" in line for line in notes) == 2
    assert first.measures == second.measures
    measured(plan(folder, tmp_path, "base", "other", limit=3, samples=3), notes.append)
    assert one.file("other").stat().st_mtime_ns != stamp


def test_stored_replies_of_other_rules_are_graded_again(folder: Path, tmp_path: Path) -> None:
    """A verdict of older rules does not stay: here every stored reply counts as a refusal, and none is one."""
    one, notes = plan(folder, tmp_path, "base", limit=2, tasks=["over-refusal"], reward=None), list[str]()
    measured(one)
    path = one.file("base")
    now = read_items(path)
    assert {item.values["refused"] for item in now} == {0.0}
    write_items(path, [replace(item, values={"refused": 1.0}) for item in now], read_header(path) | {"rules": "old"})
    measured(one, notes.append)
    assert "evaluation: the stored replies of base are graded by the rules of this version" in notes
    assert "evaluating base" not in notes
    assert read_items(path) == now
    assert read_header(path)["rules"] == suite.rules()


def test_a_stopped_evaluation_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, notes = plan(folder, tmp_path, "base", "copy", "other", limit=2, samples=3), list[str]()

    def stop(text: str) -> None:
        if text == "evaluating copy":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(one, stop)
    assert not (one.place / PLAN_FILE).exists()  # nothing that a report could be made of
    with pytest.raises(DataError, match="nothing was evaluated here"):
        build(one.folder)
    measured(one, notes.append)
    assert "evaluation: base was measured before, and nothing it depends on has changed" in notes
    assert "evaluating copy" in notes


def test_other_tokenizers_have_no_kl(folder: Path, tmp_path: Path) -> None:
    tiny_folder(tmp_path / "alien", eos="<|endoftext|>")
    (tmp_path / "alien" / "tokenizer.json").write_text(
        (tmp_path / "alien" / "tokenizer.json").read_text().replace('"a":', '"aa":', 1)
    )
    config = EvaluateConfig.model_validate(settings(folder, tasks=["answers"]))
    one = Plan(tmp_path, {"base": str(folder / "base"), "alien": str(tmp_path / "alien")}, "base", config)
    report = measured(one)
    rows = table(report)
    assert not {"kl", "preferences"} & set(rows)
    assert "alien" not in rows["entropy"].values
    notes = {m.what: m.why for m in report.not_measured}
    assert (
        notes["KL of alien"]
        == notes["entropy of alien"]
        == notes["preferences of alien"]
        == "its tokenizer is not base's"
    )
    # Counted in the base's tokens, so that the lengths can be compared; here a token is a letter, and the end is one.
    for item in read_items(one.file("alien")):
        if item.task == "answers":
            assert item.values["length"] == len((item.answer or "").encode()) + 1


def test_an_items_file_holds_what_was_asked_and_answered(folder: Path, tmp_path: Path) -> None:
    one = plan(folder, tmp_path, "base", tasks=["capability", "answers"], samples=2)
    measured(one)
    items = read_items(one.file("base"))
    assert [item.task for item in items] == ["capability"] * 3 + ["answers"] * 2
    assert items[0].prompt == "Two and two?"
    assert items[0].expected == "4"
    assert isinstance(items[0].answer, str)
    assert items[0] == Item(**{name: getattr(items[0], name) for name in Item.__dataclass_fields__})


# ------------------------------------------------------------------ the commands


ALLOWED = {"allow": ["eval-overlap"]}  # the reward model was trained on the rows that are measured on


def comparison_of(folder: Path, out: Path, *runs: str, **changes: Any) -> Report:
    config = ComparisonConfig.model_validate(settings(folder, limit=3, samples=4, **changes))
    return comparison.evaluate([str(folder / run) for run in runs], config, output=out, device="cpu", threads=1)


def test_the_command_finds_the_proxy_among_the_runs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        DataError, match=r"data: 12 of 12 rows \(100.0%\) are trained on: 12 word for word, 0 nearly; by rm"
    ):
        comparison_of(folder, tmp_path / "out", "base", "other", "rm")
    report = comparison_of(folder, tmp_path / "out", "base", "other", "rm", **ALLOWED)
    assert {missing.what for missing in report.not_measured} >= {"data as held-out rows"}
    assert report.models == ["base", "other"]
    assert report.against == "base"
    assert report.reward_model is not None
    written = Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert written == report
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!")
    assert "report.html" in capsys.readouterr().out


def test_the_command_needs_a_language_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every model given is a reward model"):
        comparison_of(folder, tmp_path, "rm")
    with pytest.raises(ConfigError, match="given twice"):
        comparison_of(folder, tmp_path, "base", "base")
    with pytest.raises(ConfigError, match="'gone' is none of the language models given: base, other"):
        comparison_of(folder, tmp_path, "base", "other", against="gone")
    with pytest.raises(ConfigError, match="gates: there is no second model to judge"):
        comparison_of(folder, tmp_path, "base", gates={"capability_drop": 0.1})
    with pytest.raises(ConfigError, match=r"gates\.model: 'base' is not judged; name one of: other"):
        comparison_of(folder, tmp_path, "base", "other", gates={"capability_drop": 0.1, "model": "base"})
    with pytest.raises(ConfigError, match=r"gates\.win_rate: cannot run: there is no judge"):
        comparison_of(folder, tmp_path, "base", "other", gates={"win_rate": 0.5})
    with pytest.raises(ConfigError, match=r"gates\.capability_drop: limit 0\.1 cannot pass with 3 questions"):
        comparison_of(folder, tmp_path, "base", "other", gates={"capability_drop": 0.1})


def test_two_runs_in_one_report(folder: Path, tmp_path: Path) -> None:
    comparison_of(folder, tmp_path / "a", "base", "copy", "rm", **ALLOWED)
    comparison_of(folder, tmp_path / "b", "base", "other", "rm", **ALLOWED)
    both = comparison.report([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert both.models == ["a/base", "a/copy", "b/base", "b/other"]
    assert both.against == "a/base"
    row = table(both)["capability"]
    assert row.differences["b/base"].value == 0
    assert set(row.differences) == {"a/copy", "b/base", "b/other"}
    # Both runs are held against the same base model and judged by the same reward, so the verdicts stand together.
    assert set(table(both)["win-rate"].values) == {"a/copy", "b/other"}


def test_only_what_a_run_would_ship_is_judged_beside_another(folder: Path, tmp_path: Path) -> None:
    gates = {"capability_drop": 0.99}
    comparison_of(folder, tmp_path / "a", "base", "copy", gates=gates, allow=["underpowered-gate"])
    comparison_of(folder, tmp_path / "b", "other", "base", gates=gates, allow=["underpowered-gate"])
    both = comparison.report([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert set(both.verdict.models) == {"a/copy", "b/base"}
    # The second run's KL is from another model: it is not shown as if it were from the first run's.
    assert set(table(both)["kl"].values) == {"a/copy"}
    notes = {m.what: m.why for m in both.not_measured}
    assert notes["b: KL"] == "measured against other of b, which is another model"


def test_files_of_an_earlier_evaluation_are_not_reused(folder: Path, tmp_path: Path) -> None:
    """Into the same folder: first with verdicts and a reward model, then without either."""
    comparison_of(folder, tmp_path, "base", "other", "rm", **ALLOWED)
    assert (tmp_path / "evaluation" / "other.wins.jsonl").is_file()
    again = comparison_of(folder, tmp_path, "base", "other", tasks=["capability"])
    assert again.reward_model is None
    assert set(table(again)) == {"capability"}


def test_an_interrupted_second_evaluation_leaves_nothing_to_trust(folder: Path, tmp_path: Path) -> None:
    measured(plan(folder, tmp_path, "base", "other", limit=2, samples=3))

    def stop(text: str) -> None:
        if text == "evaluating other":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(plan(folder, tmp_path, "base", "other", limit=3, samples=3), stop)
    with pytest.raises(DataError, match="nothing was evaluated here"):
        build(tmp_path)


def test_rows_over_max_length_are_left_out_and_counted(folder: Path, tmp_path: Path) -> None:
    """A token is a letter here: a prompt of 100 more letters than the others, and rankings of several lengths."""
    made = [*ASKED, {"prompt": "x" * 100}]
    prompts = tiny_data.write(tmp_path / "long.jsonl", made)
    one = plan(folder, tmp_path, "base", tasks=["answers", "preferences"], prompts=prompts, samples=5, max_length=70)
    report = measured(one)
    assert len(of_task(read_items(one.file("base")), "answers", "length")) == 5
    notes = {m.what: m.why for m in report.not_measured}
    assert notes["1 of 13 prompts"] == "longer than evaluate.max_length=70 tokens with their answers"
    [left] = [what for what in notes if what.endswith(" rankings") and "of 12" in what]
    assert notes[left] == "longer than evaluate.max_length=70 tokens"
    with pytest.raises(DataError, match=r"evaluate\.max_length=9 leaves none of 12 rankings; raise it"):
        measured(plan(folder, tmp_path, "base", max_length=9))


def test_a_grader_keeps_to_its_range(folder: Path, tmp_path: Path) -> None:
    grader = tiny_data.reward_function(tmp_path, "def score(talks): return [2.0 for one in talks]")
    with pytest.raises(
        ConfigError, match=r"evaluate\.grader: .*score gave 2\.0 for a#1 .*\n  fix: return a number from 0 to 1"
    ):
        measured(plan(folder, tmp_path, "base", grader=grader, tasks=["capability"]))


def test_a_reward_that_is_not_finite_is_named(folder: Path, tmp_path: Path) -> None:
    gold = tiny_data.reward_function(tmp_path, "def score(talks): return [float('inf') for one in talks]")
    config = EvaluateConfig.model_validate(settings(folder, tasks=["answers"]))
    with pytest.raises(TrainingError, match="scores must be finite"):
        measured(Plan(tmp_path, {"base": str(folder / "base")}, "base", config, gold=gold))


def test_runs_that_were_asked_otherwise_are_not_compared(folder: Path, tmp_path: Path) -> None:
    comparison_of(folder, tmp_path / "a", "base", "copy")
    comparison_of(folder, tmp_path / "b", "base", "other", temperature=0.5)
    with pytest.raises(DataError, match="a and b were measured on different questions or settings: sampling differ"):
        comparison.report([tmp_path / "a", tmp_path / "b"], tmp_path / "both")


# ------------------------------------------------------------------ one policy


def test_a_policy_by_itself(tmp_path: Path) -> None:
    from trueup.data.rendering.messages import Message

    network = tiny_network(tmp_path / "base")
    network.add_trainable("policy", None)
    asked = [(Message("user", text),) for text in ("Hi", "Why is that so?")]
    prompts = [PromptRow(one, network.renderer.prompt(one)) for one in asked]
    how = Sampling(max_new_tokens=5, max_tokens=500)
    alone = measure_policy(network, prompts, how, reward=None)
    assert set(alone) == {"length", "missing_end", "repetition"}
    assert means(alone)["n"] == 2
    network.add_reference()
    same = measure_policy(network, prompts, how, reward=None)
    assert means(same)["kl"] == pytest.approx(0, abs=1e-5)
    assert same["length"] == alone["length"]
    shake(network)
    moved = means(measure_policy(network, prompts, how, reward=None))
    assert math.isfinite(moved["kl"])
    assert moved["kl"] != 0


def test_max_tokens_reaches_sampling_and_changes_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trueup.data.rendering.messages import Message
    from trueup.evaluation import policy

    network = tiny_network(tmp_path / "base")
    network.add_trainable("policy", None)
    asked = [(Message("user", text),) for text in ("Hi", "Why is that so?", "No.")]
    prompts = [PromptRow(one, network.renderer.prompt(one)) for one in asked]
    real, budgets = policy.sample, list[int]()
    monkeypatch.setattr(policy, "sample", lambda *args, **how: budgets.append(how["max_tokens"]) or real(*args, **how))
    answers = [policy.answers_to(network, prompts, Sampling(5, max_tokens)) for max_tokens in (4096, 3)]
    assert answers[0] == answers[1]
    assert budgets == [4 * 4096, 12]


def test_the_evaluations_max_tokens_reaches_the_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: set[int] = set()
    real = tasks.Subject.sampling
    monkeypatch.setattr(tasks.Subject, "sampling", lambda self, heat: sizes.add(self.max_tokens) or real(self, heat))
    measured(plan(folder, tmp_path, "base", tasks=["capability"], max_tokens=77))
    assert sizes == {77}


def test_plan_json_is_plain(folder: Path, tmp_path: Path) -> None:
    one = plan(folder, tmp_path, "base", tasks=["capability"])
    measured(one)
    content = json.loads((tmp_path / "evaluation" / "plan.json").read_text())
    assert content["against"] == "base"
    assert content["gates"] is None
    assert content["models"]["base"]["file"] == "base.jsonl"


def test_exact_kls_are_those_of_the_models_own_logits(tmp_path: Path) -> None:
    """Sums over the vocabulary of policy * (log policy - log reference) by transformers, at two answers' tokens."""
    ours, theirs = tiny_network(tmp_path / "a"), tiny_network(tmp_path / "b")
    for network in (ours, theirs):
        network.add_trainable("policy", None)
    shake(ours)
    examples = [
        Example([5, 6, 7], (Branch([8, 9, 5], [True] * 3),)),
        Example([4, 3], (Branch([7, 6, 5, 4], [True] * 4),)),
    ]
    exact, sampled = token_kls(ours, theirs, examples, max_tokens=8)
    expected: list[torch.Tensor] = []
    ratios: list[torch.Tensor] = []
    for example in examples:
        answer, start = example.branches[0].ids, len(example.trunk) - 1
        ids = torch.tensor([[*example.trunk, *answer]])
        with torch.no_grad():
            a, b = (part.trunk("policy")(input_ids=ids).logits[0, start:-1].log_softmax(-1) for part in (ours, theirs))
        expected.append((a.exp() * (a - b)).sum(-1))
        ratios.append((a - b).gather(-1, torch.tensor(answer)[:, None]).squeeze(-1))
    assert exact.tolist() == pytest.approx(torch.cat(expected).tolist(), abs=1e-5)
    assert sampled.tolist() == pytest.approx(torch.cat(ratios).tolist(), abs=1e-5)
    assert exact.min() > 0
