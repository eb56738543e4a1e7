"""The command that installs an extra: from where this installation came, never a name that may be somebody else's."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from trueup.system import commandline


@pytest.mark.parametrize(
    ("url", "details", "expected"),
    [
        ("file:///a%20b/trueup", {"dir_info": {"editable": True}}, ["--editable", "/a b/trueup[rank]"]),
        ("file:///a/trueup", {"dir_info": {}}, ["/a/trueup[rank]"]),
        ("file:///a/t.whl", {"archive_info": {}}, ["trueup[rank] @ file:///a/t.whl"]),
        ("https://h/o/t", {"vcs_info": {"vcs": "git", "commit_id": "1f"}}, ["trueup[rank] @ git+https://h/o/t@1f"]),
        ("", {}, [f"trueup[rank]=={metadata.version('trueup')}"]),
    ],
)
def test_the_source_of_an_extra(
    url: str, details: dict[str, Any], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commandline, "_origin", lambda: (url, details))
    assert commandline.requirement("rank") == expected
    assert commandline.is_from_this_machine() == url.startswith("file:")


def test_the_command_works_in_the_folder_of_the_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commandline, "_origin", lambda: (tmp_path.as_uri(), {"dir_info": {"editable": True}}))
    monkeypatch.chdir(tmp_path)
    assert commandline.install_command("rank").endswith("pip install --editable '.[rank]'")
