"""What fuzzing found, each as the small input it came down to: refused in words, or read as it was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_fuzz_config import BOMB

from trueup.config import STAGES, DataConfig, DpoConfig, PipelineConfig, SftConfig, load_config, to_yaml
from trueup.data.sources.stream import RowStream
from trueup.errors import ConfigError, DataError

SFT = "model: base\noutput: run\ndata: a.jsonl\n"


def said(tmp_path: Path, text: str | bytes, *overrides: str, method: str = "sft") -> str:
    """What `load_config` refuses it with."""
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load_config({**STAGES, "pipeline": PipelineConfig}[method], path, overrides)
    assert str(caught.value).count("\n") < 6
    assert all(len(line) <= 600 for line in str(caught.value).splitlines())
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "over 20,000 values"),
        ("[" * 5000, "nested too deep"),
        (SFT + f"seed: {'9' * 5000}\n", "more than 4,300 digits"),
        (SFT + "seed: !!int x\n", "not of the kind int"),
        (SFT + 'seed: !!float ""\n', "not of the kind float"),
        (SFT + 'report: "\\ud800"\n', "half a surrogate pair"),
        (SFT + '"\\ud800": 1\n', "half a character"),
        (SFT + f"# {'x' * 2**20}\n", "over 1,048,576 bytes"),
        (SFT + f"seed: *{'x' * 5000}\n", "undefined alias"),
        (SFT + f"seed: !{'x' * 5000} 1\n", "is not allowed"),
    ],
)  # fmt: skip
def test_a_file_that_broke_the_reader(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in said(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data=" + "{" * 5000, "nested too deep"),
        ("loss\udcb2=1", "not UTF-8 text"),
        ("seed=" + "9" * 5000, "more than 4,300 digits"),
        ("data={prompt: " * 900, "not YAML"),
        ("se\x1b[2Jed=3", "\\x1b"),
        ("x" * 9000, "not a setting"),
    ],
)
def test_an_override_that_broke_the_reader(tmp_path: Path, override: str, words: str) -> None:
    told = said(tmp_path, SFT, override)
    assert words in told
    assert told.replace("\n", "").isprintable()


def test_a_number_beyond_floats_is_no_parameter_of_a_loss(tmp_path: Path) -> None:
    assert "must be a number" in said(tmp_path, SFT + f"loss: {{name: ipo, beta: {10**400}}}\n", method="dpo")


def test_a_value_of_any_length_is_told_in_short(tmp_path: Path) -> None:
    stages = f"stages:\n  s: {{method: sft}}\n  r: {{method: {'x' * 4000}}}\n  p: {{method: ppo, from: s, reward: r}}\n"
    assert "…" in said(tmp_path, f"name: p\nbase: b\n{stages}evaluate: {{reward: r}}\n", method="pipeline")


def test_a_reward_that_is_no_name_is_refused(tmp_path: Path) -> None:
    assert "evaluate.reward" in said(tmp_path, "l:\nstages:\n o:\nevaluate:\n reward: {s:{}}", method="pipeline")


def test_a_key_of_half_a_character_in_a_pipeline_from_python() -> None:
    with pytest.raises(ValueError, match="valid string"):
        PipelineConfig.model_validate({"a\udcf2": 1})


@pytest.mark.parametrize(
    "name", ["a\x00b", "a\x85b", "\x85", "a\u2028b", "\ufeff", "a\nb", "tab\tbed", "é😀", "-\x1b[2J"]
)
def test_odd_text_is_written_so_that_it_comes_back(name: str, tmp_path: Path) -> None:
    config = SftConfig.model_validate({"model": name, "output": "run", "data": "a.jsonl"})
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(SftConfig, path) == config


def test_a_field_of_a_thousand_letters_is_not_proposed_as_a_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"messag{"9" * 9000}": [{{"role": "user", "content": "a"}}]}}\n')
    with pytest.raises(DataError) as caught:
        list(RowStream(DataConfig(path=str(path)), "prompt"))
    assert len(str(caught.value)) < 1000


def test_a_pipe_is_read_to_its_limit_and_no_further(tmp_path: Path) -> None:
    """`trueup sft <(envsubst < x.yaml)` is a pipe; /dev/zero has no end."""
    with pytest.raises(ConfigError, match="over 1,048,576 bytes"):
        load_config(DpoConfig, Path("/dev/zero"))
