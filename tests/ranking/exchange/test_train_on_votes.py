"""Training on a store: the same as on its export, and the votes a run began with are the votes it ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_data
from tiny_votes import made, undo, vote

from trueup.__main__ import main
from trueup.errors import DataError
from trueup.ranking.exchange import export

SAID = ["1", "2", "11", "12", "1", "t", "1", "b", "2", "s", "1", ""]


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_the_same_losses_as_from_its_export(tmp_path: Path, method: str) -> None:
    path = made(tmp_path / "votes.db", *SAID, gold="2")
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
    path = made(tmp_path / "votes.db", *SAID)
    config = tiny_data.stage("sft", tmp_path, data={"path": str(path), "use": "chosen"}, optim={"steps": 1})
    tiny_data.run(config)
    assert tiny_data.account(config)["used"] == 7


def test_a_resumed_run_does_not_take_new_votes(tmp_path: Path) -> None:
    """It says at which event it began; with that event, what it ends with is what it would have been."""
    path = made(tmp_path / "votes.db", *SAID)
    settings: dict[str, Any] = {"data": str(path), "optim": {"steps": 4}}
    whole = tiny_data.stage("dpo", tmp_path, "whole", **settings)
    tiny_data.run(whole)
    config = tiny_data.stage("dpo", tmp_path, "stopped", **settings)
    assert tiny_data.run_stopped(config, 6)
    vote(path, 12, "1")
    with pytest.raises(DataError, match="changed-data") as caught:
        tiny_data.run(config)
    pinned = f"{path}@13"
    assert f"go on with the votes there were, by giving the data as {pinned}" in str(caught.value)
    tiny_data.run(tiny_data.stage("dpo", tmp_path, "stopped", **settings | {"data": pinned}))
    assert tiny_data.result(config) == tiny_data.result(whole)


def test_other_votes_of_the_same_event_number_are_noticed(tmp_path: Path) -> None:
    """A pinned store that is not the one of before: its rows are compared, not its event."""
    config = tiny_data.stage("dpo", tmp_path, data=f"{made(tmp_path / 'votes.db', '1', '1', '1', '1')}@4")
    assert tiny_data.run_stopped(config, 6)
    (tmp_path / "votes.db").unlink()
    made(tmp_path / "votes.db", "1", "1", "1", "2")
    with pytest.raises(DataError, match="changed-data"):
        tiny_data.run(config)


def test_check_and_show_tell_what_is_left_out(
    tmp_path: Path, tiny_base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(made(tmp_path / "votes.db", *SAID))
    assert main(["check", path, "--model", tiny_base, "--method", "dpo"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "11 rows read = 7 used + 1 left out (no answer has more than half of the votes)" in out
    assert "1 left out (a tie)" in out
    assert main(["show", f"{path}@1", "--model", tiny_base, "-n", "1"]) == 0
    assert "votes.db:1" in capsys.readouterr().out


PIPELINE = """
base: {base}
data: {data}
output: {output}
device: cpu
threads: 1
stages:
  sft: {{data: {{path: {data}, use: chosen}}, optim: {{steps: 2}}}}
  reward: {{from: sft, optim: {{steps: 2}}}}
  dpo: {{from: sft, optim: {{steps: 2}}}}
"""


def test_a_pipeline_runs_again_what_new_votes_change(
    tmp_path: Path, tiny_base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(tmp_path / "votes.db", *SAID)

    def run(data: object, *more: str) -> str:
        text = PIPELINE.format(base=tiny_base, data=data, output=tmp_path / "runs")
        (tmp_path / "all.yaml").write_text(text)
        assert main(["run", str(tmp_path / "all.yaml"), *more]) == 0
        told = capsys.readouterr()
        return " ".join((told.out + told.err).split())

    assert "running for the first time" in run(path)
    vote(path, 10, "s")  # said before: nothing of the rows changes
    assert run(path, "--dry-run").count("skipped") == 3
    vote(path, 12, "1")
    told = run(path, "--dry-run")
    assert f"what it is made from changed: data ({path}@13 are the votes it was made from)" in told
    assert run(f"{path}@13", "--dry-run").count("skipped") == 3
    undo(path, "a")
    assert run(path, "--dry-run").count("skipped") == 3
