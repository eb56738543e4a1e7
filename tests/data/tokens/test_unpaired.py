"""KTO's completions: both sides of rankings, or labels, over the sections of a mixture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from data.tokens import making
from trueup.config import STAGES
from trueup.data.tokens.prepare import Prepared, prepare
from trueup.data.unpaired import mismatched, unpaired_examples
from trueup.errors import DataError
from trueup.recipes.kto import unpaired_sampler

RENDERER = making.renderer()


def ready(data: Any) -> Prepared:
    config = STAGES["dpo"].model_validate({"model": "m", "output": "o", "data": data, "loss": {"name": "kto"}})
    return prepare(config, RENDERER)


@pytest.fixture
def mixed(tmp_path: Path) -> Prepared:
    """Two rankings that are seen twice an epoch, and three that are seen once."""
    often = making.write(tmp_path / "often.jsonl", making.rankings(2))
    once = making.write(tmp_path / "once.jsonl", making.rankings(3, start=50))
    return ready([{"path": str(often), "weight": 2.0}, str(once)])


def test_all_chosen_then_all_rejected(mixed: Prepared) -> None:
    made = unpaired_examples(mixed.train)
    assert [one.branches[0].scalars["desirable"] for one in made] == [1.0] * 5 + [0.0] * 5
    assert [one.branches[0].ids for one in made] == [
        mixed.train[at].branches[side].ids for side in (0, 1) for at in range(5)
    ]
    assert [one.trunk for one in made][5:] == [one.trunk for one in mixed.train]
    assert [one.row for one in made] == list(range(10))


def test_both_sides_are_as_often_seen_as_their_section(mixed: Prepared) -> None:
    optim = SimpleNamespace(batch_size=4)
    stage = SimpleNamespace(train=mixed.train, prepared=mixed, config=SimpleNamespace(optim=optim, seed=0))
    sampler = unpaired_sampler(cast("Any", stage))
    assert sampler.n == 2 * (2 * 2 + 3)
    seen = Counter(row for _ in range(-(-sampler.n // sampler.batch_size)) for row in sampler.next())
    assert [seen[at] for at in range(10)] == [2, 2, 1, 1, 1, 2, 2, 1, 1, 1]


def test_labels_are_what_they_are(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": f"a{at}", "label": at % 3 == 0} for at in range(6)]
    made = unpaired_examples(ready(str(making.write(tmp_path / "rows.jsonl", rows))).train)
    assert [one.branches[0].scalars["desirable"] for one in made] == [1.0, 0.0, 0.0] * 2


def test_a_prompt_with_anothers_completion_is_held_to_the_length(mixed: Prepared) -> None:
    examples = unpaired_examples(mixed.train)
    limit = max(len(one.trunk) for one in examples) + 9
    made = mismatched(examples, limit)
    assert len(made) == 10
    for at, one in enumerate(made):
        other = examples[(at + 1) % 10]
        assert one.trunk == examples[at].trunk
        assert one.branches[0].ids == other.branches[0].ids[: limit - len(one.trunk)]
        assert one.longest <= limit
        assert other.trunk != one.trunk


def labelled(folder: Path, prompts: str) -> Any:
    rows = [{"prompt": q, "completion": f"a{at}", "label": at % 2 == 0} for at, q in enumerate(prompts)]
    return unpaired_examples(ready(str(making.write(folder / "rows.jsonl", rows))).train)


def test_a_prompt_never_gets_its_own_other_answer(tmp_path: Path) -> None:
    """Rows q q r r r q: the next row of another prompt is 2 2 5 5 5, and after the last the circle begins at 2."""
    examples = labelled(tmp_path, "qqrrrq")
    made = mismatched(examples, 1000)
    assert [one.branches[0].ids for one in made] == [examples[at].branches[0].ids for at in (2, 2, 5, 5, 5, 2)]
    assert [one.trunk for one in made] == [one.trunk for one in examples]


def test_one_prompt_alone_has_no_other(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all 3 completions answer the same prompt"):
        mismatched(labelled(tmp_path, "qqq"), 1000)
