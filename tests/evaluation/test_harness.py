"""Tasks of the lm-evaluation-harness: its logged samples become items; here a stand-in plays it, where it is not."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tiny import tiny_folder
from trueup import runtime
from trueup.errors import ConfigError, MissingExtraError
from trueup.evaluation.harness import run_harness
from trueup.system.commandline import install_command

CPU = runtime.init("cpu")


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtraError, match=re.escape(install_command("harness"))):
        run_harness("base", ["arc_easy"], None, CPU)


def stand_in(monkeypatch: pytest.MonkeyPatch, samples: dict[str, Any]) -> dict[str, Any]:
    """Puts a module in the harness's place; -> what it was called with."""
    called: dict[str, Any] = {}

    def simple_evaluate(**arguments: Any) -> dict[str, Any]:
        called.update(arguments)
        if "nosuch" in arguments["tasks"]:
            raise KeyError("Spec 'nosuch' is not a registered task")
        return {"samples": samples}

    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace(simple_evaluate=simple_evaluate))
    return called


def test_each_document_is_one_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two filters of a document the first counts; acc_norm goes before acc."""
    rows = [{"doc_id": 0, "acc": 0.0, "acc_norm": 1.0}, {"doc_id": 1, "acc": 1.0, "acc_norm": 0.0}]
    again = [
        {"doc_id": 0, "exact_match": 1.0, "filter": "strict"},
        {"doc_id": 0, "exact_match": 0.0, "filter": "loose"},
    ]
    called = stand_in(monkeypatch, {"arc": rows, "gsm": again})
    items = run_harness("model", ["arc", "gsm"], 5, CPU)
    assert [(one.id, one.topic, one.values["score"]) for one in items] == [
        ("arc-0", "arc", 1.0), ("arc-1", "arc", 0.0), ("gsm-0", "gsm", 1.0)
    ]  # fmt: skip
    assert called["model_args"] == {"pretrained": "model", "dtype": "float32"}
    assert (called["limit"], called["device"], called["log_samples"]) == (5, "cpu", True)


def test_tasks_of_a_named_group_have_the_group_in_their_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a gate may name the group, or one of its tasks, at any depth."""
    rows = [{"doc_id": 0, "acc": 1.0}]
    module = SimpleNamespace(simple_evaluate=lambda **_: {
        "samples": {"mmlu_law": rows, "arc": rows},
        "group_subtasks": {"mmlu": ["mmlu_social"], "mmlu_social": ["mmlu_law"], "arc": []},
    })  # fmt: skip
    monkeypatch.setitem(sys.modules, "lm_eval", module)
    assert [item.topic for item in run_harness("model", ["mmlu", "arc"], None, CPU)] == ["mmlu/mmlu_law", "arc"]


def test_a_task_that_is_not_there_or_has_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, {"odd": [{"doc_id": 0, "perplexity": 3.0}]})
    with pytest.raises(ConfigError, match=r"evaluate\.harness: nosuch: the harness refuses"):
        run_harness("model", ["nosuch"], None, CPU)
    with pytest.raises(ConfigError, match=r"odd gives no acc_norm, acc"):
        run_harness("model", ["odd"], None, CPU)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="the harness is not installed")
def test_the_real_harness_on_a_task_of_ones_own(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"q": f"Number {at}?"}) + "\n" for at in range(6))
    (tmp_path / "rows.jsonl").write_text(rows)
    task = tmp_path / "colours.yaml"
    task.write_text(
        "task: colours\ndataset_path: json\ntest_split: test\noutput_type: multiple_choice\ndoc_to_target: 0\n"
        f"dataset_kwargs: {{data_files: {{test: '{tmp_path}/rows.jsonl'}}}}\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: [blue, soup]\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    items = run_harness(tiny_folder(tmp_path / "base"), [str(task)], 4, CPU)
    assert len(items) == 4
    assert {one.values["score"] for one in items} <= {0.0, 1.0}
