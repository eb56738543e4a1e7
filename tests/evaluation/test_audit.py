"""`trueup audit`: two models from anywhere; identical weights differ in nothing, an endpoint gives texts alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_data
from stand_in_judges import Server, said, serving
from stand_in_model import serving_model
from tiny import tiny_folder
from trueup.cli import compare
from trueup.cli import main as cli
from trueup.evaluation.items import read_items
from trueup.report.report_schema import Report

QUESTIONS = [
    {"id": "a", "question": "Two and two?", "answer": "4", "accept": ["four"]},
    {"id": "b", "question": "One and one?", "choices": ["One.", "Two."], "answer": "Two."},
    {"id": "c", "question": "A colour?", "answer": "Blue."},
]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, which take a second each."""
    monkeypatch.setattr("trueup.report.page.pictures", lambda _: ([], []))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    tiny_folder(folder / "base")
    tiny_folder(folder / "other", seed=7)
    shutil.copytree(folder / "base", folder / "copy")
    tiny_data.data(folder, "texts", 6)
    tiny_data.write(folder / "questions.jsonl", QUESTIONS)
    tiny_data.write(folder / "asked.jsonl", [{"id": f"p{index}", "prompt": f"Number {index}?"} for index in range(8)])
    return folder


@pytest.fixture(scope="module")
def endpoint(folder: Path) -> Iterator[Server]:
    """A server of the base's weights."""
    with serving_model(folder / "base") as server:
        yield server


def settings(folder: Path) -> list[str]:
    asked = [f"{key}={folder / 'asked.jsonl'}" for key in ("prompts", "innocent", "unsafe")]
    rest = [f"capability={folder / 'questions.jsonl'}", f"forgetting={folder / 'texts-6.jsonl'}", "max_new_tokens=8"]
    return [*asked, *rest, "gates.over_refusal_rise=0.9"]


def audit(folder: Path, out: Path, *models: str | Path, more: tuple[str, ...] = ()) -> tuple[int, Report]:
    words = ["audit", *map(str, models), *settings(folder), *more, "--output", str(out), "--device", "cpu"]
    code = cli.main([*words, "--threads", "1"])
    return code, Report.model_validate_json((out / "report.json").read_text())


def answers(out: Path, name: str, task: str) -> dict[str, str | None]:
    return {item.id: item.answer for item in read_items(out / "evaluation" / f"{name}.jsonl") if item.task == task}


def test_identical_weights_are_said_to_be_identical_and_differ_in_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = audit(folder, tmp_path, folder / "base", folder / "copy")
    said_so = capsys.readouterr().err
    assert said_so.index("identical weights: copy and base are the same") < said_so.index("evaluating base")
    assert "Identical weights: base and copy are the same, tensor for tensor." in report.verdict.notes
    assert report.origins["base"].weights == report.origins["copy"].weights is not None
    for measure in report.measures:
        if difference := measure.differences.get("copy"):
            assert difference.value == 0, measure.key
            assert not difference.shown
    assert code == 0  # by its one gate of 0.9 on 8 prompts
    assert (tmp_path / "report.md").read_text().startswith("<!-- trueup report -->")
    assert "SHIP" in (tmp_path / "badge.svg").read_text()


def test_the_reference_is_measured_once_for_many(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit(folder, tmp_path / "first", folder / "base", folder / "copy", more=("samples=3",))
    capsys.readouterr()
    code, _ = audit(folder, tmp_path / "second", folder / "base", folder / "other", more=("samples=3",))
    printed = capsys.readouterr().err
    assert "base was measured before" in printed
    assert "evaluating base" not in printed
    assert "evaluating other" in printed
    assert "identical" not in printed
    assert code in (0, 8, 9)
    audit(folder, tmp_path / "third", folder / "base", folder / "other", more=("samples=3", "max_new_tokens=7"))
    assert "evaluating base" in capsys.readouterr().err  # another setting is another measurement


def test_the_same_weights_behind_an_endpoint_give_the_same_greedy_answers(
    folder: Path, tmp_path: Path, endpoint: Server
) -> None:
    _, report = audit(folder, tmp_path, folder / "base", f"{endpoint.url}#tiny")
    for task in ("over-refusal", "unsafe-compliance"):
        assert answers(tmp_path, "base", task) == answers(tmp_path, "tiny", task)
    ours, theirs = answers(tmp_path, "base", "capability"), answers(tmp_path, "tiny", "capability")
    assert {key.partition("#")[0] for key in theirs} == {"a", "c"}
    assert theirs == {key: ours[key] for key in theirs}
    missing = {entry.what: entry.why for entry in report.not_measured}
    for what in ("forgetting of tiny", "KL of tiny", "1 multiple-choice questions of tiny"):
        assert missing[what] == "an endpoint gives no log-probabilities of given texts"
    length = next(measure for measure in report.measures if measure.key == "length")
    assert length.unit == "tokens per answer"
    assert set(length.values) == {"base", "tiny"}
    assert report.origins["tiny"].weights is None
    assert any("tiny is an endpoint" in note for note in report.verdict.notes)


def test_an_endpoint_as_the_reference_counts_characters(folder: Path, tmp_path: Path, endpoint: Server) -> None:
    _, report = audit(folder, tmp_path, endpoint.url, folder / "base")  # the only model that it serves
    assert report.against == "tiny"
    length = next(measure for measure in report.measures if measure.key == "length")
    assert length.unit == "characters per answer"
    given = list(answers(tmp_path, "base", "answers").values())
    assert length.values["base"].value == sum(len(answer or "") for answer in given) / len(given)
    assert "kl" not in {measure.key for measure in report.measures}
    assert report.lengths == {}


def test_replies_are_asked_for_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An endpoint that breaks down in the middle; the same command asks for the rest."""
    broken = True

    def answer(body: dict[str, object]) -> tuple[int, str | dict[str, object], dict[str, str]]:
        if broken and len(server.bodies) > 6:
            return 400, {"error": {"message": "out of order"}}, {}
        return said("Four.")

    with serving(answer) as server:
        words = ["audit", str(folder / "base"), f"{server.url}#m", *settings(folder), "--output", str(tmp_path)]
        assert cli.main(words) == 1
        assert "prompts found no reply" in capsys.readouterr().err
        broken, before = False, len(server.bodies)
        assert cli.main(words) in (0, 8, 9)
        asked = [json.dumps({**body, "model": ""}) for body in server.bodies[before:]]
    kept = (tmp_path / "evaluation" / "m.replies.jsonl").read_text().splitlines()
    assert len({json.loads(line)["key"] for line in kept}) == len(kept) == 2 + 8 + 8  # innocent and unsafe are the same
    assert len(asked) == len(kept) - 5 + 1  # five were answered before, and each start asks for a first token


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["gone", "base"], 4, "gone: no such model folder"),
        (["base", "gone.gguf"], 4, "gone.gguf: no such file"),
        (["base"], 2, "audit: name two models or more"),
        (["base", "base"], 2, "base: the model is given twice"),
        (["base", "./base/"], 2, "base: the model is given twice"),
        (["base", ""], 2, "the name of a model is empty"),
        (["base", "other", "--output", "questions.jsonl"], 2, "questions.jsonl: is a file; give a folder"),
        (["base", "other", "--output", "other"], 2, "--output other: is a model's folder"),
        (["base", "other", "smples=3"], 2, "did you mean samples?"),
        (["base", "other", "gates.gold_drop=0.1"], 2, "did you mean gold_reward_drop?"),
        (["base", "http://user:pass@localhost:9/v1#m"], 2, "holds a user or password"),
        (["base", "https:///v1#m"], 2, "the address of a model is http(s)://HOST/v1#NAME"),
        (["base", "http://127.0.0.1:9/v1#m"], 1, "model http://127.0.0.1:9/v1: no answer"),
        (["base", "http://127.0.0.1:9/v1"], 1, "model http://127.0.0.1:9/v1: no answer"),
    ],
)
def test_one_message_for_what_cannot_be_audited(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    monkeypatch.setattr(compare, "measure", lambda *_: pytest.fail("a model was loaded"))
    assert cli.main(["audit", *words]) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("error:") == 1


def test_a_limit_that_needs_log_probabilities_is_refused_with_an_endpoint(
    folder: Path, tmp_path: Path, endpoint: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "measure", lambda *_: pytest.fail("a model was loaded"))
    words = ["audit", str(folder / "base"), endpoint.url, "gates.forgetting_rise=0.1", "--output", str(tmp_path)]
    assert cli.main(words) == 2
    assert "gates.forgetting_rise: cannot run: " in capsys.readouterr().err


def test_the_endpoint_has_no_such_model(
    folder: Path, tmp_path: Path, endpoint: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["audit", str(folder / "base"), f"{endpoint.url}#big", "--output", str(tmp_path)]) == 1
    assert "HTTP status 404" in capsys.readouterr().err
    endpoint.models = ["tiny", "big"]
    try:
        assert cli.main(["audit", str(folder / "base"), endpoint.url, "--output", str(tmp_path)]) == 2
    finally:
        endpoint.models = ["tiny"]
    assert "serves tiny, big" in capsys.readouterr().err


def test_each_endpoint_has_its_own_key(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRUEUP_KEY_B", "secret-of-b")
    with serving(lambda _: said("Four.")) as first, serving(lambda _: (401, {}, {})) as second:
        words = ["audit", f"{first.url}#one", f"{second.url}#two", "--output", str(tmp_path)]
        assert cli.main(words) == 1
    assert "the key in TRUEUP_KEY_B is not accepted" in capsys.readouterr().err
    assert "Authorization" not in first.headers[0]
    assert second.headers[0]["Authorization"] == "Bearer secret-of-b"
