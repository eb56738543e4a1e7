"""Secrets of the environment, and passwords in addresses, are in no file of a run and in nothing that is printed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
import tiny_data
import warm
from evaluation.test_judges import said, serving
from trueup.config import EvaluateConfig, PpoConfig, SftConfig, check_paths
from trueup.errors import ModelError, TrueupError
from trueup.system.text import masked

SECRETS = {
    "HF_TOKEN": "hf_marked0secret0of0the0hub",
    "WANDB_API_KEY": "wandb0marked0secret0key",
    "OPENAI_API_KEY": "sk-marked-secret-openai",
    "AWS_ACCESS_KEY_ID": "AKIAMARKEDSECRET",
    "AWS_SECRET_ACCESS_KEY": "aws/marked+secret",
    "TRUEUP_JUDGE_KEY": "judge-marked-secret",
    "SOME_PASSWORD": "password-marked-secret",
}


def run(folder: Path, *arguments: str, **environment: str) -> str:
    """All that a command prints."""
    done = warm.run(
        [sys.executable, "-m", "trueup", *arguments], cwd=folder, env=os.environ | SECRETS | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def found(folder: Path) -> list[str]:
    """Files in which a secret is."""
    texts = [value.encode() for value in SECRETS.values()]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    return [path.name for path in files if any(text in path.read_bytes() for text in texts)]


def told(text: str) -> list[str]:
    return [name for name, value in SECRETS.items() if value in text]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a pipeline that was run, judged and exported, and all that was printed."""
    folder = tmp_path_factory.mktemp("secrets")
    asked: list[str] = []

    def answer(body: dict[str, Any]) -> Any:
        asked.append(json.dumps(body))
        return said('{"verdict": "A"}')

    with serving(answer) as server:
        pipeline = {
            "name": "p", "base": tiny.tiny_folder(folder / "base"), "device": "cpu", "threads": 1,
            "allow": ["eval-overlap"],
            "stages": {"sft": {
                "method": "sft", "data": tiny_data.data(folder, "conversations", 8), "log": ["tensorboard"],
                "optim": {"lr": 0.01, "steps": 2, "batch_size": 4}, "save": {"every": 1},
            }},
            "evaluate": {
                "tasks": ["answers", "win-rate"], "prompts": tiny_data.data(folder, "prompts", 6), "samples": 4,
                "max_new_tokens": 4, "judge": server.url, "judge_model": "m", "against": "base",
            },
        }  # fmt: skip
        (folder / "p.yaml").write_text(yaml.safe_dump(pipeline))
        printed = run(folder, "run", "p.yaml", NO_PROXY="127.0.0.1")
        keys = {headers.get("Authorization") for headers in server.headers}
    assert keys == {f"Bearer {SECRETS['TRUEUP_JUDGE_KEY']}"}  # it was asked, with its own key
    assert told("".join(asked)) == []
    printed += run(folder, "export", "runs/p/sft", "--dtype", "bfloat16")
    return folder, printed


def test_a_pipeline_keeps_no_secret(made: tuple[Path, str]) -> None:
    folder, printed = made
    assert (folder / "runs" / "p" / "report.html").is_file()
    assert list(folder.rglob("tensorboard/*"))
    assert found(folder) == []
    assert told(printed) == []


FAILURES = [
    ["chat", "owner/model"],
    ["--debug", "chat", "owner/model"],
    ["--debug", "sft", "model=owner/model", "data=owner/set", "output=out"],
    ["sft", "model=base", "data=owner/set", "output=out"],
    ["--debug", "sft", "model=base", "data=none.jsonl", "output=out"],
    ["export", "runs/p/sft", "--output", "pushed", "--push-to-hub", "owner/model"],
]


@pytest.mark.slow
@pytest.mark.parametrize("command", FAILURES, ids=" ".join)
def test_what_fails_tells_no_secret(command: list[str], made: tuple[Path, str]) -> None:
    folder, _ = made
    for hub in ({"HF_HUB_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}):
        printed = run(folder, *command, HF_HOME=str(folder / "hub"), **hub)
        assert printed.strip()
        assert told(printed) == []
    assert found(folder) == []


def test_a_hub_that_repeats_the_token_does_not_get_it_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    from trueup.models.loading import load_tokenizer

    def refuse(*_: object, **__: object) -> None:
        raise OSError(f"401: your token is {SECRETS['HF_TOKEN']} at https://u:hunter2@host")

    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match=r"your token is \*\*\* at https://\*\*\*@host"):
        load_tokenizer("owner/none-such")


ADDRESSES = [
    "https://user:hunter2secret@host/x",
    "http://token:hunter2secret@h:8080/v1?key=1",
    "hf://u:hunter2secret@h/d",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_passwords_in_addresses_are_refused_and_not_shown(address: str, tmp_path: Path) -> None:
    base = {
        "model": tiny.tiny_folder(tmp_path / "base"),
        "data": tiny_data.data(tmp_path, "texts"),
        "output": str(tmp_path / "o"),
    }
    for key in ("model", "data", "output"):
        with pytest.raises(TrueupError) as caught:
            check_paths(SftConfig.model_validate(base | {key: address}))
        assert "hunter2secret" not in str(caught.value)
    ppo = {**base, "prompts": base["data"], "reward": address}
    del ppo["data"]
    with pytest.raises(TrueupError) as caught:
        check_paths(PpoConfig.model_validate(ppo))
    assert "hunter2secret" not in str(caught.value)
    with pytest.raises(ValueError, match="judge") as refused:
        EvaluateConfig.model_validate({"judge": address, "judge_model": "m"})
    reasons = [str(error["msg"]) for error in refused.value.errors()]  # pyright: ignore[reportAttributeAccessIssue]
    assert "hunter2secret" not in "".join(reasons)


def test_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    assert told(masked(f"{' '.join(SECRETS.values())}")) == []
    assert masked("at https://u:p@ss@host/x and ssh://git@h, a@b.c") == "at https://***@host/x and ssh://***@h, a@b.c"
    assert masked("https://host/a@b?c=d@e x://y") == "https://host/a@b?c=d@e x://y"
    monkeypatch.setenv("EMPTY_KEY", "")
    monkeypatch.setenv("SHORT_TOKEN", "a")
    assert masked("a short text") == "a short text"
    # Names that only contain such a word, paths and ordinary words hide nothing; what is escaped is found.
    for name, value in {
        "TOKENIZER_PATH": "/models/llama-3",
        "MONKEY": "training",
        "SSH_KEY": "/home/x/.ssh/id",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DB_PASS", 'marked"secret1')
    monkeypatch.setenv("GITHUB_PAT", "ghp_marked0")
    assert masked("training /models/llama-3/base /home/x/.ssh/id") == "training /models/llama-3/base /home/x/.ssh/id"
    assert masked('x marked"secret1 marked\\"secret1 ghp_marked0') == "x *** *** ***"
