"""A stage's data: every row accounted for, rows and held-out rows apart, long rows as is asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import tiny
import tiny_data
from data.tokens import making
from thorough import trials
from trueup.config import STAGES, StageConfig
from trueup.data.rendering.renderer import Renderer
from trueup.data.tokens.prepare import Prepared, prepare
from trueup.data.tokens.select import Examples
from trueup.errors import DataError

RENDERER = making.renderer()


def stage(method: str, data: Any, **more: Any) -> StageConfig:
    key = STAGES[method].data_fields[0]
    reward = {"reward": "score.py:score"} if method == "ppo" else {}
    return STAGES[method].model_validate({"model": "m", "output": "o", key: data, **reward, **more})


def ready(method: str, data: Any, by: Renderer = RENDERER, **more: Any) -> Prepared:
    return prepare(stage(method, data, **more), by)


def lines(view: Examples | None) -> list[int]:
    return [] if view is None else [view.origin(at).line for at in range(len(view))]


def codes(made: Prepared) -> dict[str, str]:
    return {one.code: one.level for one in made.findings}


def refused(method: str, data: Any, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        ready(method, data, **more)
    return str(caught.value)


kinds = st.lists(st.sampled_from(["short", "long", "same", "blank"]), min_size=6, max_size=30)


class TestAccount:
    @trials(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        kinds=kinds, start=st.integers(0, 4), stop=st.none() | st.integers(5, 35), limit=st.none() | st.integers(1, 20),
        holdout=st.sampled_from([0.0, 0.3, 0.6]), rule=st.sampled_from(["drop", "cut"]), seed=st.integers(0, 5),
    )  # fmt: skip
    def test_every_line_is_in_one_place(
        self, tmp_path: Path, kinds: list[str], start: int, stop: int | None, limit: int | None, holdout: float,
        rule: str, seed: int,
    ) -> None:  # fmt: skip
        """Any combination of settings: read = used + dropped + unselected + over length, each for its reason."""
        made: list[Any] = []
        for at, kind in enumerate(kinds):
            row = making.rankings(1, start=at)[0]
            row |= {"chosen": "w" * 300} if kind == "long" else {}
            row |= {"rejected": row["chosen"] + " "} if kind == "same" else {}
            made.append("" if kind == "blank" else row)
        path = making.write(tmp_path / "rows.jsonl", made)
        numbered = [line for line, kind in enumerate(kinds, 1) if kind != "blank"]
        chosen = numbered[start:stop]
        same = [line for line in chosen if kinds[line - 1] == "same"]
        whole = [line for line in chosen if line not in same]
        data = {"path": str(path), "rows": f"{start}:{'' if stop is None else stop}", "identical_pairs": "drop",
                "limit": limit, "holdout": holdout}  # fmt: skip
        try:
            prepared = ready("dpo", data, max_length=400, over_length=rule, seed=seed)
        except DataError as error:
            problem = str(error)
        else:
            problem = ""
        if problem:  # nothing is left on one side
            assert re.search("holdout=|selects nothing|the same chosen|longer than max_length|no rows in it", problem)
            return
        counts, held = prepared.counts["data"], prepared.counts.get("eval", {"used": 0})
        over = [int(one.rpartition(":")[2]) for one in counts.get("over_length", {"rows": []})["rows"]]
        held_over = [int(one.rpartition(":")[2]) for one in held.get("over_length", {"rows": []})["rows"]]
        assert counts.get("over_length", {"count": 0})["count"] == len(over)
        dropped = [int(one["at"].rpartition(":")[2]) for one in counts["dropped"]]
        used, measured = lines(prepared.train), lines(prepared.held_out)
        assert dropped == same
        assert counts["read"] == len(numbered)
        assert counts["used"] == len(used)
        assert held["used"] == len(measured)
        assert counts["read"] == counts["used"] + len(dropped) + counts["unselected"] + len(over)
        drawn = used + over + measured + held_over
        assert sorted(set(drawn)) == sorted(drawn)
        assert set(drawn) <= set(whole)
        assert len(drawn) == min(len(whole), limit or len(whole))
        assert counts["unselected"] == len(numbered) - len(same) - len(used) - len(over)
        assert counts.get("held_out", 0) == len(measured) + len(held_over)
        assert counts["blank"] == kinds.count("blank")
        assert set(over + held_over) == {line for line in drawn if kinds[line - 1] == "long" and rule == "drop"}
        if rule == "cut" and "cut" in counts:
            assert {int(one.rpartition(":")[2]) for one in counts["cut"]["rows"]} == {
                line for line in used if kinds[line - 1] == "long"
            }
        assert all(one.longest <= 400 for one in prepared.train)

    def test_trained_tokens_are_counted_as_they_train(self, tmp_path: Path) -> None:
        rows = [{"prompt": "q", "completion": "a" * size} for size in (3, 90, 200)]
        path = making.write(tmp_path / "rows.jsonl", rows)
        for rule in ("drop", "cut"):
            made = ready("sft", str(path), max_length=80, over_length=rule)
            trained = sum(branch.trained for one in made.train for branch in one.branches)
            assert made.counts["data"]["trained_tokens"] == trained
            assert made.counts["data"]["end_trained"] == len(made.train) == (1 if rule == "drop" else 3)
            [note] = [one for one in made.findings if one.code == "trained-share"]
            assert note.numbers["tokens"] == sum(one.total for one in made.train)
            assert note.numbers["trained"] == trained

    def test_the_sections_of_a_mixture_are_told_apart(self, tmp_path: Path) -> None:
        one = making.write(tmp_path / "one.jsonl", making.pairs(6))
        other = making.write(tmp_path / "other.jsonl", making.pairs(4, start=50))
        made = ready("sft", [{"path": str(one), "weight": 2.0}, {"path": str(other), "rows": "1:"}])
        assert made.weights == (2.0, 1.0)
        counts = made.counts["data"]
        assert (counts["read"], counts["used"], counts["unselected"]) == (10, 9, 1)
        assert counts["sections"] == [{"path": str(one), "rows": 6}, {"path": str(other), "rows": 3}]
        assert [Path(made.train.origin(at).file).name for at in (0, 5, 6, 8)] == ["one.jsonl"] * 2 + ["other.jsonl"] * 2
        told = [one.section for one in made.findings if one.code == "duplicates"]
        assert told == ["data[0]", "data[1]"]

    def test_eval_and_mix_have_accounts_of_their_own(self, tmp_path: Path) -> None:
        train, held = (making.write(tmp_path / f"{at}.jsonl", making.rankings(5, start=at)) for at in (0, 100))
        mix = making.write(tmp_path / "mix.jsonl", [{"text": "A document."}, {"text": "Another."}])
        made = ready(
            "dpo", str(train), eval={"data": str(held)}, mix={"data": {"path": str(mix), "use": "text"}, "weight": 0.5}
        )
        assert {name: counts["used"] for name, counts in made.counts.items()} == {"data": 5, "eval": 5, "mix": 2}
        assert made.mix is not None
        assert made.counts["mix"]["trained_tokens"] == sum(one.branches[0].trained for one in made.mix)
        assert len(set(made.fingerprints.values())) == 3

    def test_ppo_reads_prompts(self, tmp_path: Path) -> None:
        path = making.write(tmp_path / "rows.jsonl", [{"prompt": f"Question {at}?"} for at in range(5)])
        made = ready("ppo", {"path": str(path), "holdout": 0.5}, max_length=200, seed=1)
        assert set(made.counts) == {"prompts", "eval"}
        assert "trained_tokens" not in made.counts["prompts"]
        assert sorted(lines(made.train) + lines(made.held_out)) == [1, 2, 3, 4, 5]
        assert not {"untrained-end", "trained-share"} & set(codes(made))

    def test_all_is_fit_for_json(self, tmp_path: Path) -> None:
        """Also an effect that is infinite, as all chosen are longer by the same."""
        rows = [{"prompt": f"q{at}", "chosen": "aaaa", "rejected": f"{at}"} for at in range(6)]
        made = ready("dpo", {"path": str(making.write(tmp_path / "rows.jsonl", rows)), "holdout": 0.4}, seed=3)
        told = json.dumps([made.counts, [one.as_dict() for one in made.findings]], allow_nan=False)
        assert "length-bias" in told
        bias = {one.section: one.level for one in made.findings if one.code == "length-bias"}
        assert bias == {"data": "warning", "eval": "note"}  # what is only measured on teaches nothing


class TestSelection:
    def test_a_holdout_that_leaves_nothing(self, tmp_path: Path) -> None:
        path = making.write(tmp_path / "rows.jsonl", making.pairs(40))
        said = refused("sft", {"path": str(path), "limit": 2, "holdout": 0.001})
        assert said.startswith(f"{path}: holdout=0.001 of 2 rows holds out no row\n")
        said = refused("sft", {"path": str(path), "limit": 2, "holdout": 0.999})
        assert said.startswith(f"{path}: holdout=0.999 of 2 rows leaves no row to train on")

    def test_a_weight_that_shows_no_row_is_refused(self, tmp_path: Path) -> None:
        """0.1 of 3 rows rounds to none: the section would be in no epoch at all."""
        many, few = (making.write(tmp_path / f"{n}.jsonl", making.pairs(n, start=n)) for n in (20, 3))
        said = refused("sft", [str(many), {"path": str(few), "weight": 0.1}])
        assert said.startswith("data[1]: weight=0.1 of its 3 rows is less than one row an epoch")
        assert said.endswith("fix: give it a weight of at least 0.33")
        assert len(ready("sft", [str(many), {"path": str(few), "weight": 0.33}]).train) == 23

    def test_a_section_of_which_nothing_is_left_is_refused(self, tmp_path: Path) -> None:
        fine = making.write(tmp_path / "fine.jsonl", making.pairs(5))
        long = making.write(tmp_path / "long.jsonl", [{"prompt": "q", "completion": "a" * 900}])
        said = refused("sft", [str(fine), str(long)], max_length=500, over_length="drop")
        assert said.startswith(f"data[1]: no row of {long} is left")

    def test_the_seed_decides_limit_and_holdout(self, tmp_path: Path) -> None:
        path = making.write(tmp_path / "rows.jsonl", making.pairs(60))
        data = {"path": str(path), "limit": 30, "holdout": 0.3}
        drawn = [(lines(made.train), lines(made.held_out)) for made in (ready("sft", data, seed=s) for s in (0, 0, 1))]
        assert drawn[0] == drawn[1] != drawn[2]
        assert len(drawn[0][0] + drawn[0][1]) == 30


class TestHeldOut:
    def test_copies_of_rows_that_are_trained_on_are_an_error(self, tmp_path: Path) -> None:
        rows = making.rankings(8)
        near = {**rows[5], "chosen": rows[5]["chosen"].upper()}
        train = making.write(tmp_path / "train.jsonl", rows)
        held = making.write(tmp_path / "held.jsonl", [*making.rankings(3, start=50), rows[2], near])
        made = ready("dpo", str(train), eval={"data": str(held)})
        [found] = [one for one in made.findings if one.code == "eval-overlap"]
        assert found.level == "error"
        assert found.text == "2 of 5 held-out rows are trained on: 1 word for word, 1 nearly"
        assert found.places == ("held.jsonl:4 = train.jsonl:3", "held.jsonl:5 = train.jsonl:6")
        allowed = ready("dpo", str(train), eval={"data": str(held)}, allow=["eval-overlap"])
        assert codes(allowed)["eval-overlap"] == "allowed"

    def test_only_rows_that_are_used_count(self, tmp_path: Path) -> None:
        path = making.write(tmp_path / "rows.jsonl", making.pairs(10))
        halves = {"data": {"path": str(path), "rows": ":5"}, "eval": {"data": {"path": str(path), "rows": "5:"}}}
        assert "eval-overlap" not in codes(ready("sft", halves["data"], eval=halves["eval"]))
        over = {"data": {"path": str(path), "rows": "4:"}}
        made = ready("sft", halves["data"], eval=over)
        [found] = [one for one in made.findings if one.code == "eval-overlap"]
        assert found.places == ("rows.jsonl:5 = line 5",)

    def test_a_holdout_shares_nothing_with_its_section(self, tmp_path: Path) -> None:
        path = making.write(tmp_path / "rows.jsonl", making.pairs(30) + making.pairs(30))
        for seed in range(5):
            made = ready("sft", {"path": str(path), "holdout": 0.4}, seed=seed)
            assert "eval-overlap" not in codes(made)
            assert not {line % 30 for line in lines(made.train)} & {line % 30 for line in lines(made.held_out)}

    def test_nor_may_the_other_sections_of_a_mixture_hold_it(self, tmp_path: Path) -> None:
        """Rows that one section holds out are in the other, which is trained on whole."""
        one = making.write(tmp_path / "one.jsonl", making.pairs(30))
        other = making.write(tmp_path / "other.jsonl", making.pairs(30, start=20))
        made = ready("sft", [{"path": str(one), "holdout": 0.5}, str(other)])
        shared = [line for line in lines(made.held_out) if line > 20]
        [found] = [one for one in made.findings if one.code == "eval-overlap"]
        assert found.level == "error"
        assert found.places == tuple(f"one.jsonl:{line} = other.jsonl:{line - 20}" for line in shared)
        assert found.text.startswith(f"{len(shared)} of {len(lines(made.held_out))} held-out rows are trained on")

    def test_the_same_file_twice_with_the_same_share_is_no_overlap(self, tmp_path: Path) -> None:
        path = making.write(tmp_path / "rows.jsonl", making.pairs(30))
        section = {"path": str(path), "holdout": 0.3}
        assert "eval-overlap" not in codes(ready("sft", [section, section]))


LABELLED = [
    {"prompt": making.sentence(at), "completion": making.sentence(-at), "label": at % 2 == 0} for at in range(20)
]
LONG = [{"prompt": "q", "chosen": "a" * n, "rejected": "b" * m} for n, m in ((5, 6), (90, 7), (8, 95), (120, 130))]
TRUNK = 1 + len("user\nq") + 1 + 1 + 1 + len("assistant\n")  # of the prompt "q", the control tokens one each


class TestKto:
    """KTO learns from labels or from both sides of rankings, and is measured on rankings."""

    @pytest.fixture
    def labelled(self, tmp_path: Path) -> str:
        return str(making.write(tmp_path / "labelled.jsonl", LABELLED))

    @pytest.fixture
    def ranked(self, tmp_path: Path) -> str:
        return str(making.write(tmp_path / "ranked.jsonl", making.rankings(20)))

    def test_labels_measured_on_rankings(self, labelled: str, ranked: str) -> None:
        made = ready("dpo", labelled, loss={"name": "kto"}, eval={"data": ranked})
        assert [len(one.branches) for one in made.train] == [1] * 20
        assert made.held_out is not None
        assert [len(one.branches) for one in made.held_out] == [2] * 20

    def test_labels_are_not_measured_on(self, labelled: str) -> None:
        """Two unrelated completions would be taken for the chosen and the rejected answer of one prompt."""
        said = refused("dpo", {"path": labelled, "holdout": 0.4}, loss={"name": "kto"})
        assert said.startswith("data: holdout of labelled completions")

    def test_rankings_may_be_held_out(self, ranked: str) -> None:
        made = ready("dpo", {"path": ranked, "holdout": 0.4}, loss={"name": "kto"})
        assert made.held_out is not None
        assert all(len(one.branches) == 2 for one in made.held_out)

    def test_no_mixture_of_both(self, labelled: str, ranked: str) -> None:
        for data in ([labelled, ranked], [ranked, labelled]):
            assert "in one mixture" in refused("dpo", data, loss={"name": "kto"})
        assert len(ready("dpo", [labelled, labelled], loss={"name": "kto"}).train) == 40


class TestLongRows:
    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return str(making.write(tmp_path / "rows.jsonl", LONG))

    def test_they_are_told_with_what_would_do(self, path: str) -> None:
        said = refused("dpo", path, max_length=60)
        places = "rows.jsonl:2 (111 tokens), rows.jsonl:3 (116 tokens), rows.jsonl:4 (151 tokens)"
        assert said.splitlines() == [
            f"data: 3 of 4 rows are longer than max_length=60 tokens: {places}",
            "  over the limit: chosen 2, rejected 2, prompt alone 0",
            "  max_length=151 keeps every row, max_length=151 keeps 95% of them;",
            "  over_length=drop leaves the long rows out, over_length=cut cuts their answers (both are counted)",
        ]
        assert len(ready("dpo", path, max_length=151).train) == 4
        assert TRUNK + 130 + 1 == 151

    def test_they_are_left_out(self, path: str) -> None:
        made = ready("dpo", path, max_length=111, over_length="drop")
        assert lines(made.train) == [1, 2]
        assert made.counts["data"]["over_length"] == {"max_length": 111, "count": 2, "rows": [f"{path}:3", f"{path}:4"]}
        assert "longer than max_length=20" in refused("dpo", path, max_length=20, over_length="drop")

    def test_their_answers_are_cut(self, path: str) -> None:
        made = ready("dpo", path, max_length=60, over_length="cut")
        assert [one.longest for one in made.train] == [27, 60, 60, 60]
        assert [[len(branch.ids) for branch in one.branches] for one in made.train][1:] == [[40, 8], [9, 40], [40, 40]]
        assert all(branch.ids[-1] == tiny.END_ID for one in made.train for branch in one.branches)

    def test_answers_that_are_the_same_once_they_are_cut(self, tmp_path: Path) -> None:
        """Nothing can be learned of such a pair, and its loss would be log 2 for ever."""
        rows = [*LONG, {"prompt": "q", "chosen": "w" * 100 + "good", "rejected": "w" * 100 + "bad"}]
        path = making.write(tmp_path / "rows.jsonl", rows)
        said = refused("dpo", str(path), max_length=60, over_length="cut")
        assert said.startswith(f"{path}:5: cut to max_length=60 tokens, chosen and rejected are the same")
        assert len(ready("dpo", str(path), max_length=124, over_length="cut").train) == 5

    def test_a_prompt_without_room_cannot_be_cut(self, tmp_path: Path) -> None:
        path = making.write(tmp_path / "rows.jsonl", [{"prompt": "q" * 60, "completion": "a"}] * 2)
        said = refused("sft", str(path), max_length=50, over_length="cut")
        assert said.startswith(f"{path}:1: the prompt alone has 79 tokens, max_length is 50")

    def test_ppo_prompts_must_leave_room(self, tmp_path: Path) -> None:
        rows = [{"prompt": "q" * size} for size in (1, 30, 60)]
        path = making.write(tmp_path / "rows.jsonl", rows)
        rollouts = {"max_new_tokens": 20, "episodes": 16}
        for rule in ("error", "cut"):
            said = refused("ppo", str(path), max_length=69, rollouts=rollouts, over_length=rule)
            assert said.startswith(f"{path}:3: 1 of 3 prompts leave no room for 20 new tokens within max_length=69")
            assert "set max_length=99" in said
        made = ready("ppo", str(path), max_length=69, rollouts=rollouts, over_length="drop")
        assert lines(made.train) == [1, 2]
        assert len(ready("ppo", str(path), max_length=99, rollouts=rollouts).train) == 3

    def test_a_check_goes_on_to_tell_the_rest(self, path: str) -> None:
        made = prepare(stage("dpo", path, max_length=60), RENDERER, collect=True)
        [found] = [one for one in made.findings if one.code == "over-length"]
        assert (found.level, found.section) == ("error", "data")
        assert found.text.startswith("3 of 4 rows are longer")
        assert "length-bias" in codes(made)


class TestRepeatedIsKept:
    def test_and_made_again_when_it_is_damaged(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = making.rankings(5)
        path = making.write(tmp_path / "rows.jsonl", [*rows, rows[0]])
        first = [one.as_dict() for one in ready("dpo", str(path)).findings]
        [kept] = cache.glob("*/repeated.json")
        whole = kept.read_text()
        for damage in ("", "{}", "[]", "{oops", whole.replace('"exact": 1', '"exact": 7'), '{"near": 1}'):
            kept.write_text(damage)
            assert [one.as_dict() for one in ready("dpo", str(path)).findings] == first
            assert kept.read_text() == whole
        monkeypatch.setattr("trueup.data.tokens.prepare.duplicate_rows", lambda _: pytest.fail("it was kept"))
        assert [one.as_dict() for one in ready("dpo", str(path)).findings] == first

    def test_it_is_not_that_of_other_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        for repeats in (0, 1, 4):
            making.write(path, making.pairs(5) + making.pairs(repeats))
            [found] = [one for one in ready("sft", str(path)).findings if one.code == "duplicates"]
            assert found.numbers["exact"] == repeats

    def test_where_it_cannot_be_kept_nothing_is_lost(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "no space")

        monkeypatch.setattr("trueup.data.tokens.prepare.write_sealed", full)
        path = making.write(tmp_path / "rows.jsonl", making.pairs(4) * 2)
        [found] = [one for one in ready("sft", str(path)).findings if one.code == "duplicates"]
        assert found.numbers["exact"] == 4


def test_training_is_told_the_held_out_rows_too(tmp_path: Path) -> None:
    """The account that a run writes is this one."""
    data = {"path": str(making.write(tmp_path / "rows.jsonl", making.pairs(24))), "holdout": 0.3}
    config = tiny_data.stage("sft", tmp_path, data=data, optim={"steps": 1})
    tiny_data.run(config)
    counts = tiny_data.account(config)
    assert counts["held_out"] == tiny_data.account(config, "eval")["used"] > 0
    assert counts["used"] + counts["held_out"] == 24
