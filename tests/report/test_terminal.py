"""The report in a terminal: 80 columns, the verdict first, nothing acts."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from report import sample_report as samples
from trueup.report.terminal import show


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def run(report: samples.Report, columns: int = 80) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        show(report)
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("make", [samples.full, samples.empty, samples.hostile])
def test_it_fits_80_columns(shown, make, columns: int) -> None:
    assert all(cell_len(line) <= 80 for line in shown(make(), columns).splitlines())


def test_the_verdict_is_first_and_everything_is_there(shown) -> None:
    text = shown(samples.full())
    assert text.startswith("[X] HOLD  ppo\n")
    flat = " ".join(text.split())
    for words in (
        "gates of dpo: [?] NOT SHOWN", "[-] not run", "ALARM gold-falls, ppo step 21", "fix: raise kl.coef",
        "value [95% interval], and the paired difference from sft", "0.714 [0.669, 0.759]", "-0.067 worse",
        "+0.042 not shown", "could show 0.061", "Capability, n 384",
        "NOT MEASURED: KL of base: its tokenizer has no chat template",
    ):  # fmt: skip
        assert words in flat


def test_an_empty_report_has_no_ok(shown) -> None:
    text = shown(samples.empty())
    assert text.startswith("[-] NOT JUDGED")
    assert "[ok]" not in text
    assert "NOT MEASURED: everything: no model and no data were given" in text


def test_nothing_acts(shown) -> None:
    text = shown(samples.hostile())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]", text)
    assert "<script>alert(1)</script>" in text


def test_minus_signs_are_plain(shown) -> None:
    assert "\u2212" not in shown(samples.full())
