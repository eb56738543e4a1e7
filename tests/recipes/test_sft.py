"""SFT end to end on tiny rows: what is read, what is left out, what is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_data
from tiny import END_ID
from trueup.errors import ConfigError, DataError
from trueup.recipes.stage import Stage
from trueup.training.terms import RowSource


def test_it_learns_and_writes_a_model_that_transformers_opens(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = tiny_data.stage("sft", tmp_path, optim={"epochs": 6, "lr": 1e-2})
    summary = tiny_data.run(config)
    log = tiny_data.metrics(config)
    assert [row["step"] for row in log] == list(range(1, 19))
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]
    assert summary["steps"] == 18
    assert summary["last"] == log[-1]
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert model.generation_config.eos_token_id == END_ID
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    assert not (tmp_path / "run" / "adapter").exists()


def test_lora_writes_the_adapter_and_the_merged_model(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = tiny_data.stage("sft", tmp_path, lora=tiny_data.LORA, optim={"steps": 4, "lr": 1e-2})
    tiny_data.run(config)
    ids = torch.tensor([[1, 20, 30, 40, 2]])
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        before = base(ids).logits
        adapted = PeftModel.from_pretrained(base, str(tmp_path / "run" / "adapter"))(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")(ids).logits
    assert not torch.allclose(before, adapted, atol=1e-2)
    assert torch.allclose(adapted, merged, atol=1e-4)


def test_text(tmp_path: Path) -> None:
    """Every byte of a text and its end is trained, but for the first: nothing is there to predict it from."""
    data = {"path": tiny_data.data(tmp_path, "texts", 6), "use": "text"}
    config = tiny_data.stage("sft", tmp_path, data=data, optim={"steps": 2})
    tiny_data.run(config)
    texts = [row["text"] for row in tiny_data.rows("texts", 6)]
    counts = tiny_data.account(config)
    assert counts["trained_tokens"] == sum(len(text.encode()) for text in texts)
    assert counts["end_trained"] == counts["used"] == 6


def test_the_chosen_side_of_rankings(tmp_path: Path) -> None:
    data = {"path": tiny_data.data(tmp_path, "rankings", 6), "use": "chosen"}
    config = tiny_data.stage("sft", tmp_path, data=data, optim={"steps": 1})
    tiny_data.run(config)
    chosen = [row["chosen"] for row in tiny_data.rows("rankings", 6)]
    assert tiny_data.account(config)["trained_tokens"] == sum(len(text) + 1 for text in chosen)


def test_mix_is_a_second_term_with_its_own_rows(tmp_path: Path) -> None:
    mix = {"data": {"path": tiny_data.data(tmp_path, "texts", 5), "use": "text"}, "weight": 0.25, "batch_size": 2}
    config = tiny_data.stage("sft", tmp_path, mix=mix, optim={"steps": 6})
    tiny_data.run(config)
    for row in tiny_data.metrics(config):
        assert row["loss"] == pytest.approx(row["sft/loss"] + 0.25 * row["mix/loss"])
    assert [row["mix/epoch"] for row in tiny_data.metrics(config)] == [0, 0, 1, 1, 1, 2]
    assert (tiny_data.account(config)["used"], tiny_data.account(config, "mix")["used"]) == (12, 5)


def test_held_out_rows_are_measured_before_during_and_after(tmp_path: Path) -> None:
    held_out = {"data": tiny_data.data(tmp_path, "conversations", 3), "every": 2}
    config = tiny_data.stage("sft", tmp_path, allow=["eval-overlap"], eval=held_out, optim={"steps": 5})
    summary = tiny_data.run(config)
    losses = {row["step"]: row["eval/loss"] for row in tiny_data.metrics(config) if "eval/loss" in row}
    assert list(losses) == [0, 2, 4, 5]
    assert summary["last"]["eval/loss"] == losses[5] < losses[0]
    assert tiny_data.account(config, "eval")["used"] == 3


# ------------------------------------------------------------------ rows that are too long

LONG = 60


def over_length(tmp_path: Path, rule: str, **settings: Any) -> Any:
    """Four rows of about 45 tokens and, on lines 2 and 5, two with long answers."""
    made = tiny_data.rows("conversations", 4)
    for at in (1, 4):
        made.insert(at, {"prompt": f"Long {at}", "completion": "word " * (20 + at)})
    path = tiny_data.write(tmp_path / "long.jsonl", made)
    options = {"data": path, "max_length": LONG, "over_length": rule, "optim": {"steps": 1}}
    return tiny_data.stage("sft", tmp_path, **tiny_data.merged(options, settings))


def length_of(row: dict[str, str]) -> int:
    return len(f".user\n{row['prompt']}.\n.assistant\n{row['completion']}.")  # a dot for each special token


def test_long_rows_are_an_error_that_names_lines_and_limits(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        tiny_data.run(over_length(tmp_path, "error"))
    text = str(caught.value)
    longest = length_of({"prompt": "Long 4", "completion": "word " * 24})
    assert "data: 2 of 6 rows are longer than max_length=60 tokens: long.jsonl:2 (" in text
    assert f"long.jsonl:5 ({longest} tokens)" in text
    assert f"max_length={longest} keeps every row" in text
    assert "over_length=drop" in text
    assert "over_length=cut" in text
    assert len(text.splitlines()) <= 6


def test_the_limit_that_is_named_is_enough(tmp_path: Path) -> None:
    longest = length_of({"prompt": "Long 4", "completion": "word " * 24})
    tiny_data.run(over_length(tmp_path, "error", max_length=longest))
    with pytest.raises(DataError, match="1 of 6 rows"):
        tiny_data.run(over_length(tmp_path, "error", max_length=longest - 1, output=str(tmp_path / "other")))


def test_long_rows_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = over_length(tmp_path, "drop")
    tiny_data.run(config)
    counts = tiny_data.account(config)
    assert (counts["read"], counts["used"]) == (6, 4)
    assert [Path(row).name for row in counts["over_length"]["rows"]] == ["long.jsonl:2", "long.jsonl:5"]
    said = " ".join(capsys.readouterr().err.split())
    assert "data: 2 of 6 rows over max_length=60 were left out" in said
    assert "data: 6 rows read, 4 used" in said


def test_cut_rows_keep_their_end_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    source = Stage.source
    monkeypatch.setattr(
        Stage, "source", lambda stage, rows, *args, **more: kept.extend(rows) or source(stage, rows, *args, **more)
    )
    config = over_length(tmp_path, "cut")
    tiny_data.run(config)
    counts = tiny_data.account(config)
    assert (counts["read"], counts["used"], counts["end_trained"]) == (6, 6, 6)
    assert [Path(row).name for row in counts["cut"]["rows"]] == ["long.jsonl:2", "long.jsonl:5"]
    assert [one.longest for one in kept if one.row in (1, 4)] == [LONG, LONG]
    for one in kept:
        assert one.branches[0].ids[-1] == END_ID
        assert one.branches[0].mask[-1]
    assert counts["trained_tokens"] == sum(sum(one.branches[0].mask) for one in kept)


def test_a_prompt_is_never_cut(tmp_path: Path) -> None:
    path = tiny_data.write(tmp_path / "asked.jsonl", [{"prompt": "word " * 20, "completion": "Yes"}])
    with pytest.raises(DataError, match=r"asked\.jsonl:1: the prompt alone has \d+ tokens.*raise max_length"):
        tiny_data.run(over_length(tmp_path, "cut", data=path))


@pytest.mark.parametrize("rule", ["error", "drop"])
def test_no_usable_row_names_a_limit(rule: str, tmp_path: Path) -> None:
    longest = length_of({"prompt": "Long 4", "completion": "word " * 24})
    with pytest.raises(DataError, match=f"6 of 6 rows are longer than max_length=20(.|\n)*max_length={longest} keeps"):
        tiny_data.run(over_length(tmp_path, rule, max_length=20))
    assert not (tmp_path / "run" / "model").exists()


def test_a_slice_of_rows_is_counted(tmp_path: Path) -> None:
    data = {"path": tiny_data.data(tmp_path, "conversations", 12), "rows": "2:7"}
    config = tiny_data.stage("sft", tmp_path, data=data, optim={"steps": 1})
    tiny_data.run(config)
    counts = tiny_data.account(config)
    assert (counts["read"], counts["used"], counts["unselected"]) == (12, 5, 7)


def test_epochs_are_passes_over_the_rows(tmp_path: Path) -> None:
    config = tiny_data.stage("sft", tmp_path, optim={"epochs": 2, "batch_size": 5})
    assert tiny_data.run(config)["steps"] == 6  # 12 rows: 5, 5 and 2
    assert [row["sft/epoch"] for row in tiny_data.metrics(config)] == [0, 0, 1, 1, 1, 2]


# ------------------------------------------------------------------ held-out shares and mixtures


def test_a_held_out_share_is_measured_and_not_trained(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n} plus {n + 3}, please?", "completion": f"It is {2 * n + 3}."} for n in range(60)]
    path = tiny_data.write(tmp_path / "rows.jsonl", rows)
    config = tiny_data.stage("sft", tmp_path, data={"path": path, "holdout": 0.25}, optim={"epochs": 1})
    summary = tiny_data.run(config)
    train, held_out = tiny_data.account(config), tiny_data.account(config, "eval")
    assert train["read"] == 60 == train["used"] + train["unselected"]
    assert train["used"] + held_out["used"] == 60
    assert train["held_out"] == held_out["used"] > 0
    assert summary["steps"] == -(-train["used"] // 4)
    assert summary["last"]["eval/loss"] > 0


def test_a_mixture_is_seen_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        tiny_data.write(
            tmp_path / f"{name}.jsonl", [{"prompt": f"{name} {n}?", "completion": f"{n}"} for n in range(size)]
        )
        for name, size in (("a", 4), ("b", 8), ("c", 6))
    ]
    data = [{"path": paths[0], "weight": 2.0}, {"path": paths[1], "weight": 0.5}, {"path": paths[2], "limit": 3}]
    drawn: list[int] = []
    step = RowSource.next
    monkeypatch.setattr(RowSource, "next", lambda source, check: _noted(step(source, check), drawn))
    summary = tiny_data.run(tiny_data.stage("sft", tmp_path, data=data, optim={"epochs": 2, "batch_size": 5}))
    assert summary["steps"] == 2 * 3  # 4 x 2 + 8 x 0.5 + 3 rows an epoch, five a step
    seen = Counter(drawn)
    assert [seen[at] for at in range(4)] == [4] * 4
    assert [seen[at] for at in range(4, 12)] == [1] * 8  # half of them an epoch, the other half in the next
    assert [seen[at] for at in range(12, 15)] == [2] * 3
    assert len(seen) == 15


def _noted(batches: list[Any], drawn: list[int]) -> list[Any]:
    drawn.extend(row for batch in batches for row in batch.rows)
    return batches


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optim": {"warmup": 5, "epochs": 1}}, "optim.warmup: 5 steps are longer than the training, 3"),
        ({"lora": {"r": 33}}, r"lora.r: 33 is beyond every matrix .* set lora.r from 1 to 32"),
    ],
)
def test_a_number_that_only_data_or_model_makes_senseless(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Twelve rows in batches of 4 are 3 steps; the tiny model's largest matrix is 64 x 32."""
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        tiny_data.run(tiny_data.stage("sft", tmp_path, **settings))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
