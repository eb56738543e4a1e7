"""Data sets that the `datasets` package gives: saved ones, and the hub's, which is not asked in tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from casekit import PAIR, numbers, refusal, section

from trueup.data.rendering.messages import Origin
from trueup.data.sources.stream import RowStream
from trueup.errors import DataError


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets")

    def save(rows: list[dict[str, Any]], form: str | None = None) -> str:
        made = datasets.Dataset.from_list(rows)
        made.with_format(form).save_to_disk(tmp_path / "saved")
        return str(tmp_path / "saved")

    return save


def test_a_saved_data_set_streams(saved: Any) -> None:
    path = saved([PAIR] * 5, "numpy")
    found = RowStream(section(path, rows="1:3"), "conversation")
    assert numbers(found) == [2, 3]
    assert (found.account.read, found.reader.done, found.reader.files) == (5, 1.0, (path,))
    assert type(next(iter(found)).prompt[0].content) is str


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([PAIR, {"prompt": "p", "completion": None}], ':2: "completion" is null'),
        ([{"a": "x"}], ":1: no messages, or prompt and completion in the row, it has: a"),
        ([{"prompt": "p", "completion": 3}], ':1: "completion" is a number'),
        ([{"prompt": "p", "completion": b"c"}], ':1: "completion" is binary'),
    ],
)
def test_a_saved_data_sets_bad_rows(saved: Any, rows: list[dict[str, Any]], says: str) -> None:
    path = saved(rows)
    assert f"{path}{says}" in refusal(RowStream(section(path), "conversation"))


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_a_saved_data_set_that_is_damaged(saved: Any, damage: str) -> None:
    path = Path(saved([PAIR] * 100))
    arrow = next(path.glob("*.arrow"))
    if damage == "gone":
        arrow.unlink()
    else:
        arrow.write_bytes(arrow.read_bytes()[:700] if damage == "cut" else b"<html>" * 200)
    with pytest.raises(
        DataError, match=r"(?s)saved.*(not a readable saved data set|cannot be read).*\n  fix: "
    ) as caught:
        list(RowStream(section(str(path)), "conversation"))
    assert len(str(caught.value).splitlines()) <= 6


class Hub:
    """A stand-in for `datasets`: the hub itself is not asked in tests."""

    DatasetDict = dict
    rows: list[Any]

    @classmethod
    def load_dataset(cls, name: str, configuration: str | None, split: str, streaming: bool) -> Any:
        assert (name, configuration, split, streaming) == ("owner/name", None, "train", True)
        return cls

    def __class_getitem__(cls, at: int) -> Any:
        raise AssertionError("a streamed data set has no rows to index")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(*rows: Any) -> RowStream:
        class Streamed:
            def __iter__(self) -> Any:
                for row in rows:
                    if isinstance(row, Exception):
                        raise row
                    yield row

        monkeypatch.setattr(Hub, "load_dataset", lambda *_, streaming, **__: Streamed() if streaming else None)
        monkeypatch.setitem(sys.modules, "datasets", Hub)  # type: ignore[arg-type]
        return RowStream(section("owner/name"), "conversation")

    return give


def test_the_hub_streams(hub: Any) -> None:
    found = hub(PAIR, PAIR)
    assert found.reader.done == 0.0
    assert [row.origin for row in found] == [Origin("owner/name", 1), Origin("owner/name", 2)]
    assert numbers(found) == [1, 2]
    assert found.reader.done == 0.0  # its size is not known


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ((), "owner/name: there are no rows in it"),
        ((PAIR, {"prompt": "p"}), 'owner/name:2: no "completion", the row has: prompt'),
        (({"error": "gated"},), "owner/name:1: no messages, or prompt and completion"),
        (
            (PAIR, ConnectionError("reset\x1b[31m")),
            r"owner/name:2: cannot be read from here: ConnectionError: reset\x1b",
        ),
        ((PAIR, KeyError("features")), "owner/name:2: cannot be read from here: KeyError"),
        ((PAIR, 7), "owner/name:2: cannot be read from here: TypeError"),
        ((RuntimeError("x" * 5000),), "owner/name:1: cannot be read from here: RuntimeError: xxx"),
    ],
)
def test_the_hubs_bad_rows(hub: Any, rows: tuple[Any, ...], says: str) -> None:
    message = refusal(hub(*rows))
    assert says in message
    assert "\n  fix: " in message
    assert len(message) < 600
    assert all(c.isprintable() or c == "\n" for c in message)
