"""The comparison's own arithmetic: rows, useful operations, what counts as the same work, ratios and aims."""

import copy
import hashlib
import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ lies beside src/, and is not installed

from benchmarks import compare, flops, growth, table, workloads
from benchmarks.job import Told


def test_rows_are_the_same_on_every_run_and_fit():
    rows = workloads.rankings(128)
    assert workloads.rankings(128) == rows
    assert workloads.rankings(128, seed=1) != rows
    # Of the text itself, so that a new version of Python or of this file cannot change the work unnoticed.
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == "5da23618e8e95c28"
    prompts = sorted(len(row["prompt"][0]["content"].split()) + workloads.AROUND_PROMPT for row in rows)
    answers = sorted(len(row[side][0]["content"].split()) + 1 for row in rows for side in ("chosen", "rejected"))
    assert 85 <= prompts[64] <= 115
    assert 57 <= answers[128] <= 77
    longest = max(
        len(row["prompt"][0]["content"].split()) + 5 + len(row[side][0]["content"].split()) + 1
        for row in rows
        for side in ("chosen", "rejected")
    )
    assert 300 < longest <= 400


def test_tokens_are_the_words():
    tokenizer = workloads.tokenizer(64)
    row = workloads.rankings(1, words=64)[0]
    ids = tokenizer.apply_chat_template(row["prompt"] + row["chosen"], return_dict=True)["input_ids"]
    words = row["prompt"][0]["content"].split(), row["chosen"][0]["content"].split()
    assert len(ids) == len(words[0]) + workloads.AROUND_PROMPT + len(words[1]) + workloads.BEHIND_ANSWER
    assert tokenizer.decode(ids[2 : 2 + len(words[0])]).split() == words[0]


def test_human_rankings_are_taken_apart_into_turns():
    text = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c d\n\nAssistant: e"
    assert workloads.turns(text) == [("user", "a"), ("assistant", "b"), ("user", "c d"), ("assistant", "e")]


def test_useful_operations_by_hand():
    """One block, H = 4, keys 2, intermediate 8, 10 words; a prompt of 3, branches of 2 and 1, 3 predicted positions.

    Matrices: q 16, k 8, v 8, o 16, gate 32, up 32, down 32 = 144. Tokens 6: 2 * 144 * 6 = 1728.
    Seen: 9/2 + (4/2 + 2*3) + (1/2 + 1*3) = 16; attention 2 products * 2 * 4 * 16 = 256. Head 2 * 4 * 10 * 3 = 240.
    Forward 2224. Backward: activations 1728 + 2 * 256 + 240 = 2480, weights 1728 + 240 = 1968.
    """
    sizes = flops.Sizes(layers=1, hidden=4, keys=2, intermediate=8, words=10)
    one = flops.Sequences(3, (2, 1), 3)
    assert flops.forward(sizes, one) == 2224
    assert flops.backward(sizes, one) == 2480 + 1968
    assert flops.useful(sizes, [one, one], reference=True) == 2 * (2224 + 4448 + 2224)
    assert flops.forward(sizes, one, head=False) == 1984


def test_useful_operations_of_adapters_by_hand():
    """Rank 2: (4+4) + 2 (4+2) + (4+4) + 2 (4+8) + (8+4) = 64 sums of sides, 128 parameters.

    They add 2 * 128 * 6 = 1536 to the forward and to the backward by activations, and are all whose weights train.
    """
    sizes = flops.Sizes(layers=1, hidden=4, keys=2, intermediate=8, words=10, rank=2)
    one = flops.Sequences(3, (2, 1), 3)
    assert sizes.adapters == 128
    assert flops.forward(sizes, one) == 2224 + 1536
    assert flops.backward(sizes, one) == (2480 + 1536) + 1536
    assert flops.useful(sizes, [one], reference=True) == 3760 + 5552 + 2224  # the reference is the bare model


def told(**changed):
    values = {
        "losses": [0.7, 0.6],
        "norms": [2.0, 3.0],
        "rows": ["5 abc", "7 def"],
        "gradients": {"0/a": [1.0, 0.5, -0.5], "0/b": [0.1, 0.05, 0.0], "0/silent": [0.0, 0.0]},
    }
    return Told(**copy.deepcopy(values) | changed)


def test_the_same_work_agrees():
    rounded = told(losses=[0.7 + 1e-6, 0.6], gradients=told().gradients | {"0/a": [1.0 + 1e-5, 0.5, -0.5]})
    found = compare.agreement(rounded, told(), "x")
    assert (found.steps, found.sequences) == (2, 2)
    assert 0 < found.loss < 1e-5
    assert 0 < found.gradient < 1e-4


def test_a_loss_of_nearly_nothing_is_compared_with_a_thousandth():
    compare.agreement(told(losses=[2.15e-6, 0.6]), told(losses=[2.17e-6, 0.6]), "x")
    with pytest.raises(compare.DifferentWorkError, match="loss"):
        compare.agreement(told(losses=[2e-6, 0.6]), told(losses=[4e-6, 0.6]), "x")


@pytest.mark.parametrize(("step", "agrees"), [(0, False), (1, True)])
def test_later_steps_may_differ_more(step, agrees):
    names = {f"{step}/a": [1.0, 0.5, -0.5], "0/b": [1.0, 1.0]}
    other = names | {f"{step}/a": [1.0, 0.503, -0.5]}
    if agrees:
        compare.agreement(told(gradients=other), told(gradients=names), "x")
    else:
        with pytest.raises(compare.DifferentWorkError, match="gradient of 0/a"):
            compare.agreement(told(gradients=other), told(gradients=names), "x")


@pytest.mark.parametrize(
    ("planted", "named"),
    [
        ({"rows": ["5 abc", "7 other"]}, "sequences"),
        ({"losses": [0.7, 0.601]}, "loss"),
        ({"losses": [0.7, float("nan")]}, "loss"),
        ({"norms": [2.0, 3.1]}, "gradient norm"),
        ({"gradients": told().gradients | {"0/b": [0.1, 0.051, 0.0]}}, "gradient of 0/b"),
        ({"gradients": {"0/a": [1.0, 0.5, -0.5], "0/silent": [0.0, 0.0]}}, "0/b on TRL's"),
        ({"gradients": told().gradients | {"0/new": [1.0, 1.0]}}, "0/new on trueup's"),
        ({"losses": []}, "nothing can be compared"),
    ],
)
def test_a_planted_difference_is_found(planted, named):
    with pytest.raises(compare.DifferentWorkError, match=named):
        compare.agreement(told(**planted), told(), "x")


def test_a_rate_leaves_the_warm_up_out_and_counts_what_was_done_once():
    """Two of four steps are timed: 8 units in 20 - 12 seconds and half of 4 seconds once -> 0.8 a second."""
    run = Told(ends=[5.0, 12.0, 15.0, 20.0], once=4.0, peak=7)
    found = compare.measured(run, [100, 100, 3, 5], warmup=2, shares=0.5)
    assert found.rate == pytest.approx(0.8)
    assert (found.step, found.first, found.peak) == (4.0, 5.0, 7)


def work():
    sides = {
        name: {
            "rate": rate,
            "slowest": rate,
            "fastest": rate,
            "peak_bytes": peak,
            "first_step_seconds": 1.0,
            "note": name,
        }
        for name, rate, peak in (("trueup", 8.0, 1e9), ("TRL", 1.0, 4e9), ("TRL, best", 2.0, 2e9))
    }
    agreed = {"sequences": 2, "steps": 2, "tensors": 3, "loss": 1e-7, "norm": 1e-7, "gradient": 1e-6}
    return {
        "name": "dpo", "title": "DPO", "unit": "pairs", "aims": {"speed": 8, "memory": 0.2}, "sides": sides,
        "ratios": compare.ratios(sides), "agreement": agreed,
    }  # fmt: skip


def test_names_of_both_sides_meet():
    """What trueup, TRL with PEFT and TRL's PPO call the same weights."""
    from benchmarks.probe import plain

    query = "model.layers.0.self_attn.q_proj"
    assert {
        plain(f"trunks.base.{query}.lora_A.policy.weight"),
        plain(f"base_model.model.{query}.lora_A.default.weight"),
        plain(f"policy.base_model.model.{query}.lora_A.default.weight"),
    } == {f"{query}.lora_A.weight"}
    assert {
        plain(f"trunks.base.{query}.lora_B.value.weight"),
        plain(f"value_model.{query}.lora_B.default.weight"),
    } == {f"value: {query}.lora_B.weight"}
    assert (
        plain("heads.value.weight")
        == plain("value_model.score.modules_to_save.default.weight")
        == "value: score.weight"
    )
    assert plain("heads.reward.weight") == plain("score.weight") == "score.weight"
    assert plain(f"trunks.value.{query}.weight") == plain(f"value_model.{query}.weight") == f"value: {query}.weight"


def test_growth_has_rows_of_one_length_and_counts_parameters():
    tokenizer = workloads.tokenizer(64)
    for row in growth.conversations(3, 40, 64):
        ids = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"]
        assert len(ids) == 40
    # 10 words of 4; a block: 4 square matrices of 16, 3 of 4 x 8
    assert growth.parameters(workloads.Shape(words=10, hidden=4, layers=2, heads=1, intermediate=8)) == 40 + 2 * 160


def test_ratios_and_aims_in_the_table():
    one = work()
    assert one["ratios"] == {"TRL": {"speed": 8.0, "memory": 0.25}, "TRL, best": {"speed": 4.0, "memory": 0.5}}
    rows = {row[0]: row for row in table.rows_of(one)}
    assert rows["TRL"][-2:] == ("8.00x, aim >= 8x: met", "0.25x, aim <= 0.2x: NOT MET")
    assert rows["TRL, best"][-2:] == ("4.00x", "0.50x")  # the aims are against TRL as it is by default
    assert rows["trueup"][-2:] == ("", "")


def test_sampling_and_start_up_are_told_with_their_aims():
    found = {
        "sampling": {
            "sides": {"trueup": {"rate": 300.0}, "transformers": {"rate": 100.0}}, "ratio": 3.0, "aim": 2.0,
            "lengths": {"answers": 4, "shortest": 1, "longest": 9},
        },
        "startup": {"seconds": {"trueup": 3.5, "TRL": 4.0}, "aim": 3.0},
    }  # fmt: skip
    sampling, startup = table.alone(found)
    assert sampling.endswith("trueup 300 tokens/s, transformers' generate 100: 3.00x, aim >= 2x: met")
    assert startup.endswith("trueup 3.5 s, TRL 4.0 s (aim <= 3 s: NOT MET)")


def test_what_did_not_run_says_so():
    machine = {
        "processor": "P", "cores": 2, "threads": 2, "memory_bytes": 1e9, "commit": "c",
        "versions": dict.fromkeys(("trueup", "torch", "transformers", "trl"), "1"),
    }  # fmt: skip
    failed = work()
    failed["sides"]["TRL, best"] = {"note": "TRL, best: x", "failed": "no such option"}
    missing = {"name": "s", "title": "SmolLM2", "not_run": "no data given"}
    out = io.StringIO()
    table.show({"machine": machine, "matmul": {"a": 1e9}, "works": [failed, missing]}, Console(file=out, width=160))
    text = out.getvalue()
    assert "SmolLM2: NOT RUN: no data given" in text
    assert "did not run" in text
    assert "no such option" in text
