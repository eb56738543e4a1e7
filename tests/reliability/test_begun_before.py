"""Runs, token caches, votes and reports made at commit 9e8a585 still work with the code of today.

`begun_at_9e8a585/` was made with the code of that commit (its README.md says how) and never changes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_data
import trueup
from trueup.cli.main import main
from trueup.config import STAGES, PipelineConfig, load_config
from trueup.data.tokens.build import open_cached
from trueup.data.votes.store import Store

BEFORE = Path(__file__).parent / "begun_at_9e8a585"
EXPECTED: dict[str, Any] = json.loads((BEFORE / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the folder and work in it, with its token cache. Fresh copies are not removed as old entries."""
    folder = tmp_path / "before"
    shutil.copytree(BEFORE, folder, copy_function=shutil.copy)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TRUEUP_CACHE", "cache")
    return folder


def is_same_machine(name: str, run: Path) -> bool:
    """Return True if bits must be equal: the surroundings are the same, except for trueup's code."""
    parts = json.loads((run / "surroundings.json").read_text(encoding="utf-8"))["parts"]
    then, now = (
        {key: value for key, value in surroundings.items() if key not in ("code", "trueup")}
        for surroundings in (EXPECTED[name]["surroundings"], parts[-1]["surroundings"])
    )
    return then == now


@pytest.mark.parametrize(
    "name", [name if name in ("sft-lora", "ppo") else pytest.param(name, marks=pytest.mark.slow) for name in EXPECTED]
)
def test_an_old_run_resumes_to_its_old_result(name: str, before: Path) -> None:
    """Resume runs stopped in a micro-batch, between steps and while sampling; compare logs and weights."""
    expected = EXPECTED[name]
    config = load_config(STAGES[expected["method"]], before / expected["config"], [])
    run = before / config.output
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == expected["checkpoints"]
    begun = (run / "metrics.jsonl").read_bytes()
    references = {path: path.stat().st_ino for path in run.glob("reference-*.safetensors")}
    assert bool(references) == (name == "dpo")
    assert getattr(trueup, expected["method"])(config) == config.output
    log = (run / "metrics.jsonl").read_bytes()
    assert log.startswith(begun)  # it resumed and did not start again
    assert {path: path.stat().st_ino for path in references} == references  # the old log-probabilities are used
    if is_same_machine(name, run):
        assert tiny_data.result(config) == expected["sha256"]
        assert log == (before / "whole" / name / "metrics.jsonl").read_bytes()
    elif expected["method"] != "ppo":  # one different sampled token changes all that follows
        _assert_close(run / expected["weights"], before / "whole" / name / "weights.safetensors")


def test_an_old_run_resumes_with_its_rate_where_none_is_given(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Leave the rate out, as a run with the default of then does: today's default is another one."""
    expected = EXPECTED["sft-lora"]
    path = before / expected["config"]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("  lr:")), encoding="utf-8")
    config = load_config(trueup.SftConfig, path, [])
    assert config.optim.lr != 0.003
    run = before / config.output
    begun = (run / "metrics.jsonl").read_bytes()
    trueup.sft(config)
    assert (run / "metrics.jsonl").read_bytes().startswith(begun)
    assert "optim.lr is 0.003, with which the run in" in " ".join(capsys.readouterr().err.split())
    if is_same_machine("sft-lora", run):
        assert tiny_data.result(config) == expected["sha256"]
    assert load_config(trueup.SftConfig, run / "config.yaml", []).optim.lr == 0.003


def _assert_close(ours: Path, theirs: Path) -> None:
    import torch
    from safetensors.torch import load_file

    actual, expected = load_file(ours), load_file(theirs)
    assert set(actual) == set(expected)
    for key, tensor in actual.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-3, atol=1e-4)


def test_an_old_token_cache_opens_and_is_kept(before: Path) -> None:
    """Open every old entry, before and after a new run that uses the same cache."""
    entries = json.loads((before / "cache.json").read_text(encoding="utf-8"))
    config = load_config(STAGES["sft"], before / "sft-lora.yaml", ["output=runs/new", "optim.steps=1"])
    trueup.sft(config)
    assert (before / "runs" / "new" / "summary.json").is_file()
    opened = {key: open_cached(key) for key in entries}
    assert {key: rows and [len(rows), rows.fingerprint] for key, rows in opened.items()} == entries
    # Equal rows give equal tokens: the entry that the run used, old or new, equals an old one.
    fingerprint = json.loads((before / "runs" / "new" / "data.json").read_text(encoding="utf-8"))["data"]["fingerprint"]
    assert any(entry[1] in fingerprint for entry in entries.values())


def test_old_votes_give_the_same_results(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compare results, and the exports by majority, by vote, as verdicts and of edits, byte for byte."""
    assert main(["rank", "results", "votes/votes.db", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    expected = json.loads((before / "votes" / "results.json").read_text(encoding="utf-8"))
    assert len(results.pop("notes")) == len(expected.pop("notes"))  # their wording may change
    for ranked in (*results["ranking"], *expected["ranking"]):  # their intervals are of the score test since
        del ranked["points"]["low"], ranked["points"]["high"]
    assert results == expected
    options = {"majority": ["--edits", "again/edits.jsonl"], "every": ["--votes", "every", "--gold"]}
    for name, arguments in {**options, "verdicts": ["--as", "verdicts"]}.items():
        assert main(["rank", "export", "votes/votes.db", f"again/{name}.jsonl", *arguments]) == 0
    for path in (before / "again").iterdir():
        assert path.read_bytes() == (before / "votes" / path.name).read_bytes(), path.name
    assert len(list((before / "again").iterdir())) == 4
    assert main(["rank", "import", "votes/votes.db", "votes/arena.jsonl"]) == 0
    assert "12 there before" in capsys.readouterr().out


def test_ranking_continues_in_an_old_store(before: Path) -> None:
    """Compare raters, leases, the undone vote and the draws from the store's secret with those of then."""
    facts = json.loads((before / "votes" / "facts.json").read_text(encoding="utf-8"))
    with Store.open(before / "votes" / "votes.db") as store:
        counts = store.counts()
        assert {key: getattr(counts, key) for key in facts["counts"]} == facts["counts"]
        assert store.last_event() == facts["last_event"]
        assert len(store.votes()) == facts["votes"]
        assert [rater.name for rater in store.raters()] == facts["raters"]
        assert [pair.id for pair in store.pairs() if pair.gold] == facts["gold"]
        assert store.salt == facts["salt"]
        votes = store.votes()
        store.rebuild()
        assert store.votes() == votes
        for name, pair in facts["holds"].items():
            task = store.next(store.rater(name), now=facts["now"] + 1)
            assert task is not None
            assert task.pair.id == pair
        ann = store.rater("ann")
        assert store.undo(ann, "ann-undo", now=facts["now"] + 1) is not None  # the same request: not another undo
        assert store.counts() == counts


def test_an_old_finished_pipeline_is_not_run_again(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Skip every stage and measurement, and make the same report again."""
    path = before / "pipeline" / "report.json"
    old_report = _report(path)
    trueup.run(load_config(PipelineConfig, before / "pipeline.yaml", []))
    output = " ".join(capsys.readouterr().err.split())
    assert output.count("finished before, and nothing it was made from has changed: skipped") == 2
    assert output.count("was measured before, and nothing it depends on has changed") == 3
    assert _report(path) == old_report
    path.unlink()
    for stage in ("sft", "dpo"):
        shutil.rmtree(before / "pipeline" / stage / "model")
    assert main(["report", "pipeline"]) == 9  # its gold reward is constant, which decides nothing today
    assert _report(path) == old_report


def _report(path: Path) -> dict[str, Any]:
    """Return a report's stages, measured values and curves: without what it says of itself, its wording, its verdict.

    Since then verdicts count missing judgements and constant rewards, intervals are others, and a stage says on how
    much its warnings rest.
    """
    report = json.loads(path.read_text(encoding="utf-8"))
    report["alarms"] = [alarm for alarm in report["alarms"] if alarm["name"] != "nothing-moved"]
    for stage in report["stages"]:
        stage.pop("watched", None)
    for measure in report["measures"]:
        del measure["note"]
        for table in ("values", "differences"):
            numbers = measure.get(table, {})
            measure[table] = {name: (number["value"], number["n"]) for name, number in numbers.items()}
    later = ("made", "versions", "seconds", "command", "verdict", "not_measured", "judge", "origins", "reward_sets")
    return {key: value for key, value in report.items() if key not in later}
