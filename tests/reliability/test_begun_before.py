"""What trueup began, kept and evaluated at commit 9e8a585 goes on with the code of today: runs, caches, votes, reports.

`begun_at_9e8a585/` was made by the code of that commit (its README.md says how) and never changes.
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
    """A copy of the folder, as the working folder and with its token cache. The copies are new: none is tidied away."""
    folder = tmp_path / "before"
    shutil.copytree(BEFORE, folder, copy_function=shutil.copy)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TRUEUP_CACHE", "cache")
    return folder


def is_same_machine(name: str, run: Path) -> bool:
    """Whether bits have to be equal: all is as it was, trueup's own code aside."""
    parts = json.loads((run / "surroundings.json").read_text(encoding="utf-8"))["parts"]
    then, now = (
        {key: value for key, value in one.items() if key not in ("code", "trueup")}
        for one in (EXPECTED[name]["surroundings"], parts[-1]["surroundings"])
    )
    return then == now


@pytest.mark.parametrize("name", list(EXPECTED))
def test_a_run_begun_then_ends_as_it_would_have_then(name: str, before: Path) -> None:
    """Stopped in a micro-batch, between steps, and while it sampled; with the logs and the last checkpoint's bits."""
    told = EXPECTED[name]
    config = load_config(STAGES[told["method"]], before / told["config"], [])
    run = before / config.output
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == told["checkpoints"]
    begun = (run / "metrics.jsonl").read_bytes()
    references = {path: path.stat().st_ino for path in run.glob("reference-*.safetensors")}
    assert bool(references) == (name == "dpo")
    assert getattr(trueup, told["method"])(config) == config.output
    log = (run / "metrics.jsonl").read_bytes()
    assert log.startswith(begun)  # it went on, and was not begun again
    assert {path: path.stat().st_ino for path in references} == references  # what was computed then is used
    if is_same_machine(name, run):
        assert tiny_data.result(config) == told["sha256"]
        assert log == (before / "whole" / name / "metrics.jsonl").read_bytes()
    elif told["method"] != "ppo":  # of sampled answers one other token makes all that follows another
        _assert_close(run / told["weights"], before / "whole" / name / "weights.safetensors")


def _assert_close(ours: Path, theirs: Path) -> None:
    import torch
    from safetensors.torch import load_file

    mine, other = load_file(ours), load_file(theirs)
    assert set(mine) == set(other)
    for key, tensor in mine.items():
        torch.testing.assert_close(tensor, other[key], rtol=1e-3, atol=1e-4)


def test_a_token_cache_of_then_opens_and_is_left_alone(before: Path) -> None:
    """Its entries are whole for the code of today; a run beside them keeps its own."""
    kept = json.loads((before / "cache.json").read_text(encoding="utf-8"))
    config = load_config(STAGES["sft"], before / "sft-lora.yaml", ["output=runs/new", "optim.steps=1"])
    trueup.sft(config)
    assert (before / "runs" / "new" / "summary.json").is_file()
    found = {key: open_cached(key) for key in kept}
    assert {key: one and [len(one), one.fingerprint] for key, one in found.items()} == kept
    # The same rows are the same tokens: the entry that the run used, of then or its own, is equal to one of then.
    fingerprint = json.loads((before / "runs" / "new" / "data.json").read_text(encoding="utf-8"))["data"]["fingerprint"]
    assert any(one[1] in fingerprint for one in kept.values())


def test_votes_of_then_say_the_same(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results, and rows by majority, by vote, as verdicts, and the edited answers, byte for byte."""
    assert main(["rank", "results", "votes/votes.db", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((before / "votes" / "results.json").read_text())
    how = {"majority": ["--edits", "again/edits.jsonl"], "every": ["--votes", "every", "--gold"]}
    for name, more in {**how, "verdicts": ["--as", "verdicts"]}.items():
        assert main(["rank", "export", "votes/votes.db", f"again/{name}.jsonl", *more]) == 0
    for path in (before / "again").iterdir():
        assert path.read_bytes() == (before / "votes" / path.name).read_bytes(), path.name
    assert len(list((before / "again").iterdir())) == 4
    assert main(["rank", "import", "votes/votes.db", "votes/arena.jsonl"]) == 0
    assert "12 there before" in capsys.readouterr().out


def test_ranking_goes_on_in_a_store_of_then(before: Path) -> None:
    """Raters, leases, the undone vote and what is drawn by the store's secret are as they were; a vote can be given."""
    facts = json.loads((before / "votes" / "facts.json").read_text(encoding="utf-8"))
    with Store.open(before / "votes" / "votes.db") as store:
        counts = store.counts()
        assert {key: getattr(counts, key) for key in facts["counts"]} == facts["counts"]
        assert store.last_event() == facts["last_event"]
        assert len(store.votes()) == facts["votes"]
        assert [one.name for one in store.raters()] == facts["raters"]
        assert [pair.id for pair in store.pairs() if pair.gold] == facts["gold"]
        assert store.salt == facts["salt"]
        votes = store.votes()
        store.rebuild()
        assert store.votes() == votes
        for name, pair in facts["holds"].items():
            shown = store.next(store.rater(name), now=facts["now"] + 1)
            assert shown is not None
            assert shown.pair.id == pair
        ann = store.rater("ann")
        assert store.undo(ann, "ann-undo", now=facts["now"] + 1) is not None  # the same request: not another undo
        assert store.counts() == counts


def test_a_pipeline_finished_then_is_not_run_again(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every stage and measurement is found done, and the report made anew says the same."""
    path = before / "pipeline" / "report.json"
    then = _report(path)
    trueup.run(load_config(PipelineConfig, before / "pipeline.yaml", []))
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("finished before, and nothing it was made from has changed: skipped") == 2
    assert said.count("was measured before, and nothing it depends on has changed") == 3
    assert _report(path) == then
    path.unlink()
    for stage in ("sft", "dpo"):
        shutil.rmtree(before / "pipeline" / stage / "model")
    assert main(["report", "pipeline"]) == 0
    assert _report(path) == then


def _report(path: Path) -> dict[str, Any]:
    """Return a report without when, where and by which command it was made, and without its wording."""
    report = json.loads(path.read_text(encoding="utf-8"))
    report["verdict"].pop("sentence")
    for model in report["verdict"]["models"].values():
        model.pop("reasons")
        for gate in model["gates"]:
            del gate["title"], gate["words"]
    for measure in report["measures"]:
        del measure["note"]
    return {key: value for key, value in report.items() if key not in ("made", "versions", "seconds", "command")}
