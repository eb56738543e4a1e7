"""The GitHub Action and the workflow that `trueup audit --workflow` writes: their scripts run, with stand-ins."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from trueup.cli import main as cli
from trueup.cli.workflow import PATH, workflow
from trueup.report.comment import MARKER

GIT = {"vcs_info": {"vcs": "git", "commit_id": "abc"}}
ACTION = Path(__file__).parents[2] / "action.yml"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["audit", "models/a b", "owner/b", "gates.capability_drop=0.03", "samples=9", "--workflow"]) == 0
    return yaml.safe_load((tmp_path / PATH).read_text())


def steps(content: dict[str, Any]) -> dict[str, Any]:
    listed = content["runs"]["steps"] if "runs" in content else content["jobs"]["audit"]["steps"]
    return {step.get("name", step.get("uses")): step for step in listed}


def stand_ins(folder: Path, earlier: str = "", code: int = 0) -> dict[str, str]:
    """`trueup` and `gh` that write down their arguments; the environment of a runner."""
    place = folder / "runner" / "trueup" / "bin"
    place.mkdir(parents=True)
    (place / "trueup").write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {folder}/trueup.txt\nexit {code}\n')
    (place / "gh").write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$*" >> {folder}/gh.txt\n[[ "$*" != *paginate* ]] || echo "{earlier}"\n'
    )
    for program in place.iterdir():
        program.chmod(0o755)
    (folder / "out").mkdir()
    (folder / "out" / "report.md").write_text(f"{MARKER}\n\n## HOLD\n")
    files = {name: str(folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    return {
        **files, "RUNNER_TEMP": str(folder / "runner"), "PATH": f"{place}:{os.environ['PATH']}", "OUTPUT": "out",
        "GITHUB_REPOSITORY": "o/r", "NUMBER": "7",
    }  # fmt: skip


def run(script: str, folder: Path, environment: dict[str, str]) -> int:
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]  # as GitHub starts `shell: bash`
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def test_no_action_is_pinned_by_a_tag_that_moves(written: dict[str, Any]) -> None:
    action = yaml.safe_load(ACTION.read_text())
    assert action["runs"]["using"] == "composite"
    assert not [step for step in action["runs"]["steps"] if "uses" in step]
    assert all(step["shell"] == "bash" for step in action["runs"]["steps"])
    used = [step["uses"] for step in steps(written).values() if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", name) for name in used)
    assert written["permissions"] == {"contents": "read", "pull-requests": "write"}
    for step in action["runs"]["steps"]:  # a title of a pull request in a script would be run
        assert "${{" not in step["run"]


@pytest.mark.parametrize("code", [0, 8, 9, 4])
def test_the_actions_words_and_its_exit_code(tmp_path: Path, code: int) -> None:
    action = steps(yaml.safe_load(ACTION.read_text()))
    environment = stand_ins(tmp_path, code=code)
    inputs = {"MODELS": "models/a b\n\n  http://h/v1#m\n", "SETTINGS": "samples=9\n"}
    assert run(action["Audit"]["run"], tmp_path, environment | inputs) == 0
    words = (tmp_path / "trueup.txt").read_text().splitlines()
    assert words == ["audit", "--output", "out", "models/a b", "http://h/v1#m", "samples=9"]
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == f"code={code}\n"
    decided = {"CODE": str(code), "ALLOW_NOT_SHOWN": "false"}
    assert run(action["Verdict"]["run"], tmp_path, environment | decided) == code
    allowed = run(action["Verdict"]["run"], tmp_path, environment | decided | {"ALLOW_NOT_SHOWN": "true"})
    assert allowed == (0 if code == 9 else code)


def test_the_workflow_runs_the_same_command(written: dict[str, Any], tmp_path: Path) -> None:
    environment = stand_ins(tmp_path, code=8)
    assert run(steps(written)["Audit"]["run"], tmp_path, environment) == 0
    words = (tmp_path / "trueup.txt").read_text().splitlines()
    assert words == ["audit", "--output", "out", "models/a b", "owner/b", "gates.capability_drop=0.03", "samples=9"]
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == "code=8\n"
    assert steps(written)["Comment"]["run"] == steps(yaml.safe_load(ACTION.read_text()))["Comment"]["run"]
    assert MARKER in steps(written)["Comment"]["run"]


def test_the_workflow_installs_only_what_this_installation_came_from(
    written: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests run from a folder, which no runner has: a variable must name the source, and no name is guessed."""
    install = steps(written)["Install"]
    assert install["env"]["TRUEUP"] == "${{ vars.TRUEUP || '' }}"
    assert run(install["run"], tmp_path, stand_ins(tmp_path) | {"TRUEUP": ""}) == 1
    assert "::error::set the repository variable TRUEUP" in capfd.readouterr().out
    monkeypatch.setattr("trueup.system.commandline._origin", lambda: ("https://h/o/t", GIT))
    assert "vars.TRUEUP || 'trueup[gguf] @ git+https://h/o/t@abc'" in workflow(["a", "b"])


@pytest.mark.parametrize(
    ("earlier", "request_line"),
    [("", "--method POST repos/o/r/issues/7/comments"), ("31", "--method PATCH repos/o/r/issues/comments/31")],
)
def test_one_comment_that_later_runs_replace(tmp_path: Path, earlier: str, request_line: str) -> None:
    script = steps(yaml.safe_load(ACTION.read_text()))["Comment"]["run"]
    assert run(script, tmp_path, stand_ins(tmp_path, earlier)) == 0
    lines = (tmp_path / "gh.txt").read_text().splitlines()
    assert lines[1] == f"api {request_line} --field body=@out/report.md"
    assert (tmp_path / "GITHUB_STEP_SUMMARY").read_text().startswith(MARKER)


def test_a_comment_that_cannot_be_written_hides_no_verdict(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = steps(yaml.safe_load(ACTION.read_text()))["Comment"]["run"]
    environment = stand_ins(tmp_path)
    gh = tmp_path / "runner" / "trueup" / "bin" / "gh"
    gh.write_text("#!/bin/bash\nexit 1\n")
    assert run(script, tmp_path, environment) == 0
    assert "::warning::trueup could not write its comment" in capfd.readouterr().out
    (tmp_path / "out" / "report.md").unlink()
    assert run(script, tmp_path, environment) == 0  # the audit itself failed: its message is in the log


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "name two models or more"),
        (["a", "b", "smples=1"], "did you mean samples?"),
        (["a", "${{ github.token }}"], "cannot stand in a workflow"),
        (["a", "b\nc"], "cannot stand in a workflow"),
    ],
)
def test_what_no_workflow_is_written_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["audit", *words, "--workflow"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / PATH).exists()


def test_another_workflow_is_kept(written: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert written
    assert cli.main(["audit", "x", "y", "--workflow", "--output", "elsewhere"]) == 2
    assert "--workflow: --output has no effect" in capsys.readouterr().err
    assert cli.main(["audit", "x", "y", "--workflow"]) == 2
    assert "exists already, with other contents" in capsys.readouterr().err
    assert "owner/b" in (tmp_path / PATH).read_text()
