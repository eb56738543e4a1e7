"""Training on a store: the same as on its export, and the votes a run began with are the votes it ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny_data
from tiny_votes import make_store, undo, vote
from trueup.cli.main import main
from trueup.config import PipelineConfig, to_yaml
from trueup.errors import DataError
from trueup.ranking.exchange import export
from trueup.recipes import pipeline

SAID = ["1", "2", "11", "12", "1", "t", "1", "b", "2", "s", "1", ""]


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_the_same_losses_as_from_its_export(tmp_path: Path, method: str) -> None:
    path = make_store(tmp_path / "votes.db", *SAID, gold="2")
    assert export(path, tmp_path / "rows.jsonl").rows == 7
    runs = [
        tiny_data.stage(method, tmp_path, name, data=str(data), optim={"steps": 3})
        for name, data in (("store", path), ("file", tmp_path / "rows.jsonl"))
    ]
    for config in runs:
        tiny_data.run(config)
    ours, theirs = map(tiny_data.metrics, runs)
    assert [line["loss"] for line in ours] == [line["loss"] for line in theirs]
    assert len({line["loss"] for line in ours}) == 3
    weights = [tiny_data.result(config)["model/model.safetensors"] for config in runs]
    assert weights[0] == weights[1]
    counts = tiny_data.account(runs[0])
    assert (counts["read"], counts["used"]) == (12, 7)
    assert counts["events"] == {str(path): 14}
    assert counts["dropped"][-1] == {"at": f"{path}:13", "reason": "a gold pair: a check of the raters"}
    assert "events" not in tiny_data.account(runs[1])


def test_sft_on_what_was_chosen(tmp_path: Path) -> None:
    path = make_store(tmp_path / "votes.db", *SAID)
    config = tiny_data.stage("sft", tmp_path, data={"path": str(path), "use": "chosen"}, optim={"steps": 1})
    tiny_data.run(config)
    assert tiny_data.account(config)["used"] == 7


def test_a_resumed_run_does_not_take_new_votes(tmp_path: Path) -> None:
    """It says at which event it began; with that event, what it ends with is what it would have been."""
    path = make_store(tmp_path / "votes.db", *SAID)
    settings: dict[str, Any] = {"data": str(path), "optim": {"steps": 4}}
    whole = tiny_data.stage("dpo", tmp_path, "whole", **settings)
    tiny_data.run(whole)
    config = tiny_data.stage("dpo", tmp_path, "stopped", **settings)
    assert tiny_data.run_stopped(config, 6)
    vote(path, 12, "1")
    with pytest.raises(DataError, match="changed-data") as caught:
        tiny_data.run(config)
    pinned = f"{path}@13"
    assert f"continue with the old votes by giving the data as {pinned}" in str(caught.value)
    tiny_data.run(tiny_data.stage("dpo", tmp_path, "stopped", **settings | {"data": pinned}))
    assert tiny_data.result(config) == tiny_data.result(whole)


VOTING = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tiny_votes import vote
from trueup.recipes import stage

real = stage.prepare_checked
def checked(*args, **options):  # the first process has read its rows, the second will
    done = real(*args, **options)
    print("rows:", done.counts, len(done.train), flush=True)
    if os.environ["RANK"] == "0":
        vote(Path({path!r}), 12, "1")
    return done
stage.prepare_checked = checked
from trueup.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_processes_read_one_moment_of_a_store(tmp_path: Path) -> None:
    """A vote between the reading of one and of the other, who would train on different rows and never know."""
    path = make_store(tmp_path / "votes.db", *SAID)
    config = tiny_data.stage("dpo", tmp_path, data=str(path), optim={"steps": 2})
    script, written = tmp_path / "voting.py", tmp_path / "stage.yaml"
    script.write_text(VOTING.format(tests=str(Path(tiny_data.__file__).parent), path=str(path)))
    written.write_text(to_yaml(config), encoding="utf-8")
    said = tiny_data.finish_processes(tiny_data.start_processes([str(script), "dpo", str(written)]))
    rows = [line for text in said for line in text.splitlines() if line.startswith("rows:")]
    assert len(rows) == 2
    assert len(set(rows)) == 1
    assert tiny_data.account(config)["events"] == {str(path): 13}


def test_other_votes_of_the_same_event_number_are_noticed(tmp_path: Path) -> None:
    """A pinned store that is not the one of before: its rows are compared, not its event."""
    config = tiny_data.stage("dpo", tmp_path, data=f"{make_store(tmp_path / 'votes.db', '1', '1', '1', '1')}@4")
    assert tiny_data.run_stopped(config, 6)
    (tmp_path / "votes.db").unlink()
    make_store(tmp_path / "votes.db", "1", "1", "1", "2")
    with pytest.raises(DataError, match="changed-data"):
        tiny_data.run(config)


def test_check_and_show_tell_what_is_left_out(
    tmp_path: Path, tiny_base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(make_store(tmp_path / "votes.db", *SAID))
    assert main(["check", path, "--model", tiny_base, "--method", "dpo"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "11 rows read = 7 used + 1 left out (no answer has more than half of the votes)" in out
    assert "1 left out (a tie)" in out
    assert main(["show", f"{path}@1", "--model", tiny_base, "-n", "1"]) == 0
    assert "votes.db:1" in capsys.readouterr().out


class Notes:
    """Takes what a pipeline says."""

    def __init__(self) -> None:
        self.said = ""

    def note(self, text: str) -> None:
        self.said += f"{text}\n"


def test_a_pipeline_runs_again_what_new_votes_change(tmp_path: Path, tiny_base: str) -> None:
    path = make_store(tmp_path / "votes.db", *SAID)

    def go(data: object, *, dry_run: bool = True) -> str:
        optim = {"optim": {"steps": 2}}
        stages = {
            "sft": {"method": "sft", "data": {"path": str(data), "use": "chosen"}, **optim},
            "dpo": {"method": "dpo", "from": "sft", **optim},
        }
        told: dict[str, Any] = {"name": "p", "base": tiny_base, "data": str(data), "runs": str(tmp_path / "runs")}
        config = PipelineConfig.model_validate(told | {"stages": stages, "device": "cpu", "threads": 1})
        notes: Any = Notes()
        pipeline.run_stages(config, notes, dry_run=dry_run)
        return notes.said

    assert go(path, dry_run=False).count("running for the first time") == 2
    vote(path, 11, " s")  # nothing of the rows changes
    assert go(path).count("skipped") == 2
    vote(path, 12, "1")
    assert f"what it is made from changed: data ({path}@13 are the votes it was made from)" in go(path)
    assert go(f"{path}@13").count("skipped") == 2
    undo(path, "a")
    assert go(path).count("skipped") == 2
