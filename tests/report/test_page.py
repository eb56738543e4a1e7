"""The page as text: complete, without a network, nothing in it acts, and nothing unmeasured looks good."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from report import sample_report as samples
from trueup.pages.html import icon
from trueup.report import view
from trueup.report.page import render
from trueup.report.report_schema import Measure, Report, ReportSample

VOID = {"meta", "input", "path", "circle", "img", "br", "rect", "use"}


class Reader(HTMLParser):
    """Tags, attributes and text; fails where tags do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def full() -> str:
    return render(samples.full())


@pytest.fixture(scope="module")
def hostile() -> str:
    return render(samples.hostile())


def test_order_of_the_page(full: str) -> None:
    landmarks = [">Verdict: <", 'id="gates-1"', 'id="alarms"', 'id="models-title"', 'id="not-measured-title"',
                 'id="pictures-title"', 'id="samples-title"', 'id="run-title"']  # fmt: skip
    found = [full.index(landmark) for landmark in landmarks]
    assert found == sorted(found)


def test_headings_do_not_skip_a_level(full: str) -> None:
    levels = [int(level) for level in re.findall(r"<h([1-6])[ >]", full)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_same_report_gives_the_same_page(full: str) -> None:
    assert render(samples.full()) == full


@pytest.mark.parametrize("make", [samples.full, samples.empty, samples.hostile])
def test_no_address_that_a_browser_would_fetch(make) -> None:
    reader = Reader(render(make()))
    for tag, attributes in reader.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "audio", "video", "image")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "action", "formaction", "background", "data", "poster")
            if name in ("href", "xlink:href"):
                assert value is not None
                assert value.startswith("#")
            assert "url(" not in (value or "") or re.search(r"url\(#[\w-]+\)", value or "")
    style = "".join(re.findall(r"<style>(.*?)</style>", render(make()), re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_this_script_and_nothing_else(full: str) -> None:
    policy = next(one["content"] for one in Reader(full).every("meta") if "http-equiv" in one)
    assert policy is not None
    scripts = re.findall(r"<script>(.*?)</script>", full, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-eval" not in policy
    assert full.index("Content-Security-Policy") < full.index("<style>") < full.index("<title>") + 500


def test_ids_are_unique_and_what_is_referred_to_exists(full: str) -> None:
    reader = Reader(full)
    ids = [value for _, attributes in reader.tags for name, value in attributes.items() if name == "id"]
    assert len(ids) == len(set(ids))
    for _, attributes in reader.tags:
        named = (attributes.get("aria-labelledby") or "").split()
        named += [(attributes.get("href") or "#")[1:], *re.findall(r"url\(#(.*?)\)", attributes.get("clip-path") or "")]
        assert [name for name in named if name and name not in ids] == []


# -- hostile text ----------------------------------------------------------------------------------------------------


def test_what_data_wrote_stays_text(hostile: str) -> None:
    reader = Reader(hostile)
    assert len(reader.every("script")) == len(reader.every("style")) == 1
    assert not reader.every("b") or all("onerror" not in attributes for attributes in reader.every("b"))
    assert reader.every("textarea") == []
    for text in ("<script>alert(1)</script>", "{{7*7}} {% raw %} {# gone #}", "</style><style>*{display:none}</style>"):
        assert text in reader.text


def test_no_character_can_act_unseen(hostile: str) -> None:
    assert not re.search(
        "[\u202a-\u202e\u2066-\u2069\u200b\u200e\u200f\ufeff\u00ad\x00-\x08\x0b-\x1f\x7f-\x9f]", hostile
    )
    assert r"over\u202eesrever\u202c" in hostile
    assert r"NUL \x00 escape \x1b" in hostile


def test_long_answers_are_all_there(hostile: str) -> None:
    halves = view.halves("x" * 20_000)
    assert "".join(halves) == "x" * 20_000
    assert f"{len(halves[1]):,} more characters" in hostile
    assert halves[1] in hostile


def test_a_text_that_is_a_little_long_is_not_split() -> None:
    assert view.halves("y" * (view.LONG + 100)) == ("y" * (view.LONG + 100), "")


# -- what was not measured -------------------------------------------------------------------------------------------


def test_an_empty_report_has_nothing_that_looks_good() -> None:
    page = render(samples.empty())
    body = page[page.index("<body>") :]
    assert "NOT JUDGED" in body
    for good in ('class="outcome pass"', 'class="outcome ship"', 'class="hero ship"', "better", "pass<"):
        assert good not in body
    assert "Not measured" in body
    assert "no model and no data were given" in body
    assert "Every check that was asked for ran" not in body
    assert body.count("Not measured: <b>") == 7


def test_a_missing_number_says_so_with_its_reason(full: str) -> None:
    row = full[full.index(">KL from sft<") :]
    row = row[: row.index("</tr>")]
    assert "not measured" in row
    assert "its tokenizer has no chat template" in row


def test_a_gate_that_did_not_run_is_not_green(full: str) -> None:
    at = full.index("The held-out unsafe requests were not answered")
    item = full[full.rindex("<li", 0, at) : full.index("</li>", at)]
    assert "not run" in item
    assert "pass" not in item


@pytest.mark.parametrize("verdict", ["SHIP", "HOLD", "NOT SHOWN", "NOT JUDGED"])
def test_each_verdict_has_a_word_and_an_icon(verdict: str) -> None:
    report = samples.empty()
    report.verdict.verdict = verdict  # pyright: ignore[reportAttributeAccessIssue]
    page = render(report)
    hero = page[page.index('class="hero') : page.index("</h2>")]
    assert f"<span>{verdict}</span>" in hero
    assert icon(verdict) in hero


# -- the table -------------------------------------------------------------------------------------------------------


def _words(better: str, value: float, *, half: float = 0.01) -> str:
    measure = Measure(
        key="x", title="X", unit="u", better=better,  # pyright: ignore[reportArgumentType]
        values={"a": samples.mean(1, 0.1, 9), "b": samples.mean(1 + value, 0.1, 9)},
        differences={"b": samples.difference(value, half, 9)},
    )  # fmt: skip
    report = samples.empty()
    report.models, report.against, report.measures = ["a", "b"], "a", [measure]
    cells = view.rows(report)[0].cells
    assert cells[0].word == "baseline"
    return cells[1].word


def test_differences_in_words() -> None:
    assert _words("higher", 0.2) == "better"
    assert _words("higher", -0.2) == "worse"
    assert _words("lower", 0.2) == "worse"
    assert _words("lower", -0.2) == "better"
    assert _words("neither", 0.2) == "higher"
    assert _words("neither", -0.2) == "lower"
    assert _words("higher", 0.2, half=0.3) == "not shown"


def test_every_number_has_interval_and_n(full: str) -> None:
    reader = Reader(full)
    for text in (
        "0.714 [0.669, 0.759] n 384",
        "\u22120.067 [\u22120.088, \u22120.046] worse p < 0.001",
        "could show 0.061",
    ):
        assert text in reader.text.replace("\xa0", " ")


def test_a_model_that_only_a_measure_names_has_a_column() -> None:
    report = samples.full()
    report.models = ["sft"]
    assert view.columns(report) == ["sft", "base", "dpo", "ppo"]


# -- samples and data ------------------------------------------------------------------------------------------------


def _sample(change: float | None, *texts: str) -> ReportSample:
    answers = {name: samples.ReportAnswer(text=text) for name, text in zip(["sft", "ppo"], texts, strict=False)}
    return ReportSample(task="t", prompt=str(change), answers=answers, change=change)


def test_largest_gains_and_losses_come_first() -> None:
    rows = [_sample(change) for change in (0.0, None, -2.0, float("nan"), 1.0)]
    assert [one.prompt for one in view.ordered(rows)] == ["-2.0", "1.0", "0.0", "None", "nan"]


def test_what_counts_as_changed() -> None:
    report = samples.full()
    report.models = ["sft", "ppo"]
    assert view.changed(_sample(0.5, "a", "a"), report)
    assert not view.changed(_sample(0.0, "a", "b"), report)
    assert view.changed(_sample(None, "a", "b"), report)
    assert not view.changed(_sample(None, "a", "a"), report)
    assert not view.changed(_sample(None), report)


def test_counts_add_up_or_say_that_they_do_not() -> None:
    data = samples.stages()[0].data["data"]
    found = view.counts("data", data)
    assert (found.read, found.used, found.left_out, found.unselected, found.adds_up) == (2592, 2580, 12, 0, True)
    assert found.lists[0].lines[0] == "world/instructions.jsonl:17: empty answer"
    assert not view.counts("data", data | {"read": 2593}).adds_up
    assert view.counts("data", {"rows": 5, "used": 3, "dropped": 2}).adds_up
    assert "do not add up" in render(_with_data({"read": 4, "used": 3}))
    assert "do not add up" not in render(_with_data({"read": 4, "used": 3, "dropped": ["line 2"]}))


def _with_data(data: dict[str, object]) -> Report:
    report = samples.empty()
    report.stages = [samples.StageRun(name="s", method="sft", finished=False, base="b", data={"data": data})]
    return report


def test_a_stage_that_did_not_finish_says_so() -> None:
    assert "NOT FINISHED" in render(_with_data({}))
