"""The configuration of `trueup rank`: from a file, from settings, from options, and which values cannot go together."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from trueup.cli import rank
from trueup.config import RankConfig, describe, load_config, template
from trueup.config.yamlfile import Value
from trueup.errors import ConfigError


def test_every_key_is_an_option_and_every_option_a_key() -> None:
    options = [name for name in signature(rank.serve).parameters if name not in ("store", "settings", "config")]
    assert options == [row.place[0] for row in describe(RankConfig)] == list(RankConfig.model_fields)
    assert all(row.help for row in describe(RankConfig))


def test_options_win_over_settings_and_settings_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rank.yaml"
    path.write_text("model: runs/a\nahead: 1\nport: 1\nlease: 30\n", encoding="utf-8")
    options: dict[str, Value] = {"port": 3, "rater": ["ana", "ben"]}
    config = load_config(RankConfig, path, ["ahead=2", "port=2"], options=options)
    assert (config.model, config.ahead, config.port, config.lease) == (["runs/a"], 2, 3, 30)
    assert config.rater == ["ana", "ben"]
    assert RankConfig.model_validate(config.model_dump(mode="json")) == config


def test_the_template_shows_every_default(tmp_path: Path) -> None:
    lines = [line.removeprefix("# ") for line in template(RankConfig).splitlines() if ": " in line and "  # " in line]
    path = tmp_path / "rank.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert len(lines) == len(RankConfig.model_fields)
    assert load_config(RankConfig, path) == RankConfig()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": ["a", "./a"]}, "--model: a is named twice"),
        ({"model": ["a"], "temperature": 0}, "1 model(s) give 0 pairs of it, not 1"),
        ({"model": ["a", "b"], "temperature": 0, "pairs_per_prompt": 2}, "2 model(s) give 1 pairs of it, not 2"),
        ({"model": ["a"], "temperature": float("nan")}, "--temperature: must be"),
        ({"temperature": -1}, "--temperature: must be at least 0; got -1"),
        ({"pairs_per_prompt": 0}, "--pairs-per-prompt: must be at least 1"),
        ({"threads": 0}, "--threads: must be at least 1"),
        ({"port": 70_000}, "--port: must be at most 65535"),
        ({"next": "uncertain"}, "--next: uncertain needs a reward model"),
        ({"rater": [""]}, "must not be empty"),
    ],
)
def test_a_configuration_that_cannot_be_meant(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(RankConfig, None, options=settings)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_two_models_without_temperature() -> None:
    assert RankConfig(model=["a", "b"], temperature=0).model == ["a", "b"]
