"""The environment of a run: recorded, kept through a resume, and a warning when it changes."""

from __future__ import annotations

import getpass
import json
import socket
from pathlib import Path

import pytest
import torch

from trueup.runs.environment import (
    SURROUNDINGS_FILE,
    changes_warning,
    code_version,
    list_changes,
    record_surroundings,
    surroundings,
)

CPU = torch.device("cpu")


def parts(folder: Path) -> list[tuple[int, dict[str, str]]]:
    told = json.loads((folder / SURROUNDINGS_FILE).read_text())
    return [(one["from_step"], one["surroundings"]) for one in told["parts"]]


def test_it_names_what_is_there() -> None:
    found = surroundings(CPU, torch.float32, world=2, strategy="ddp", attention="sdpa")
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert (found["device"], found["dtype"], found["processes"]) == ("cpu", "float32", "2, ddp")
    assert (found["threads"], found["attention"]) == (str(torch.get_num_threads()), "sdpa")
    assert all(isinstance(value, str) and value for value in found.values())
    assert json.loads(json.dumps(found)) == found
    assert list_changes(found, surroundings(CPU, torch.float32, world=2, strategy="ddp", attention="sdpa")) == []


def test_threads_and_exactness_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    before = surroundings(CPU, torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        torch.use_deterministic_algorithms(True)
        told = list_changes(before, surroundings(CPU, torch.bfloat16))
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    assert told == [
        f"threads: {threads} -> {threads + 1}", "dtype: float32 -> bfloat16", "deterministic: false -> true",
    ]  # fmt: skip


def test_nothing_of_the_person_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "hf_verysecret")
    told = json.dumps(surroundings(CPU, torch.float32))
    assert "hf_verysecret" not in told
    assert socket.gethostname() not in told
    assert str(Path.home()) not in told
    assert getpass.getuser() not in told
    assert str(Path.cwd()) not in told


def test_the_code_has_a_version_that_does_not_hang_on_compiled_files() -> None:
    assert code_version() == code_version()
    assert len(code_version()) == 16


def test_a_run_that_goes_on_under_the_same_keeps_one_part(tmp_path: Path) -> None:
    now = {"torch": "1"}
    assert record_surroundings(tmp_path, 0, now) == []
    assert record_surroundings(tmp_path, 5, now) == []
    assert parts(tmp_path) == [(0, now)]


def test_a_run_that_goes_on_under_others_is_told_and_keeps_both(tmp_path: Path) -> None:
    record_surroundings(tmp_path, 0, {"torch": "1", "threads": "2"})
    told = record_surroundings(tmp_path, 5, {"torch": "2", "threads": "2", "gpu": "new"})
    assert told == ["torch: 1 -> 2", "gpu: not known -> new"]
    assert "bits may differ: torch: 1 -> 2; gpu" in changes_warning(told)
    assert [step for step, _ in parts(tmp_path)] == [0, 5]
    # Going on from before that part: its steps are done again under what is here now.
    assert record_surroundings(tmp_path, 3, {"torch": "3", "threads": "2"}) == ["torch: 1 -> 3"]
    assert [step for step, _ in parts(tmp_path)] == [0, 3]
    assert record_surroundings(tmp_path, 2, {"torch": "1", "threads": "2"}) == []
    assert [step for step, _ in parts(tmp_path)] == [0]


def test_a_run_that_begins_again_forgets(tmp_path: Path) -> None:
    record_surroundings(tmp_path, 0, {"torch": "1"})
    assert record_surroundings(tmp_path, 0, {"torch": "2"}) == []
    assert parts(tmp_path) == [(0, {"torch": "2"})]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"parts": 3}', b'{"parts": [{}]}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_written_anew(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / SURROUNDINGS_FILE).write_bytes(damage)
    assert record_surroundings(tmp_path, 4, {"torch": "1"}) == []
    assert parts(tmp_path) == [(4, {"torch": "1"})]
