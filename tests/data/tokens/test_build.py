"""Building and finding tokens: the same by any number of processes, and found again only if nothing has changed."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

import trueup
from data.tokens import making
from trueup.config import DataConfig
from trueup.data.rendering.messages import Origin
from trueup.data.rendering.renderer import Renderer
from trueup.data.sources.parser import Parser
from trueup.data.tokens import build, spread
from trueup.data.tokens.build import tokenize
from trueup.data.tokens.pack import Task
from trueup.data.tokens.store import FILES, Tokenized
from trueup.errors import DataError, ModelError

REFUSING = (
    "{% for m in messages %}{% if 'forbidden' in m['content'] %}{{ raise_exception('not that') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DAY = 86400


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are built from now on; what is found in the cache is not among them."""
    made: list[str] = []
    real = build._build

    def noted(reader: Any, task: Any, key: str, *rest: Any) -> Tokenized:
        made.append(key)
        return real(reader, task, key, *rest)

    monkeypatch.setattr(build, "_build", noted)
    return made


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 8 rows; all after the first two are for the other processes."""
    monkeypatch.setattr(build, "CHUNK", 8)
    monkeypatch.setattr(build, "_ALONE", 16)


def refused(path: Path, rows: list[Any], workers: int, by: Renderer | None = None, **more: Any) -> str:
    with pytest.raises((DataError, ModelError)) as caught:
        making.tokens(path, rows, workers=workers, by=by, **more)
    return f"{type(caught.value).__name__}: {caught.value}"


class TestProcesses:
    def test_two_processes_make_the_same_bytes_as_one(self, tmp_path: Path, few: None, cache: Path) -> None:
        rows = making.pairs(60) + making.pairs(20)  # the last repeat the first
        rows[30] = {"prompt": "Spells <|im_end|> 日本", "completion": "Ünïcode 🎉"}
        by = making.renderer()
        alone = making.tokens(tmp_path / "rows.jsonl", rows, by=by)
        before = making.files(alone)
        (cache / alone.folder.name).rename(cache / "aside")
        ticks: list[tuple[int, float]] = []
        section = DataConfig(path=str(tmp_path / "rows.jsonl"))
        spread = tokenize(section, ["conversation"], by, workers=2, tick=lambda *told: ticks.append(told))
        assert spread.folder == alone.folder
        assert making.files(spread) == before
        assert [rows for rows, _ in ticks] == list(range(8, 81, 8))
        assert ticks[-1][1] == 1.0

    @pytest.mark.slow
    def test_what_is_wrong_is_said_in_the_same_words(self, tmp_path: Path, few: None, cache: Path) -> None:
        path = tmp_path / "rows.jsonl"
        broken: list[Any] = making.pairs(60)
        broken[36] = '{"prompt": "q", "completion": 5}'
        broken[50] = "{oops"
        said = refused(path, broken, 1)
        assert said.startswith(f"DataError: {path}:37: ")
        assert said.endswith("also unusable: line 51, of 60 rows read")
        assert refused(path, broken, 2) == said
        broken[20] = {"prompt": "forbidden", "completion": "a"}
        renderer = making.renderer(REFUSING)
        said = refused(path, broken, 1, renderer)
        assert said.startswith(f"ModelError: {path}:21: the chat template refuses these messages")
        assert "not that" in said
        assert refused(path, broken, 2, renderer) == said
        same = making.rankings(60)
        same[40]["rejected"] = same[40]["chosen"]
        said = refused(path, same, 1, want="preference")
        assert "1 of 60 pairs have the same chosen and rejected: line 41" in said
        assert refused(path, same, 2, want="preference") == said
        assert not list(cache.iterdir())

    @pytest.mark.slow
    @pytest.mark.parametrize("from_stdin", [False, True])
    def test_a_script_needs_no_guard(self, tmp_path: Path, from_stdin: bool) -> None:
        """Other processes do not run it again, as `multiprocessing` would have them do."""
        source = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from data.tokens import making
from pathlib import Path
from trueup.data.tokens import build
build.CHUNK, build._ALONE = 8, 16
print("ran")
print(len(making.tokens(Path({str(tmp_path / "rows.jsonl")!r}), making.pairs(40), workers=2)))
"""
        (tmp_path / "script.py").write_text(source)
        command = [sys.executable, "-" if from_stdin else str(tmp_path / "script.py")]
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        assert (done.stdout, done.returncode) == ("ran\n40\n", 0), done.stderr

    @pytest.mark.slow
    def test_a_process_that_is_killed_is_said_and_leaves_nothing(
        self, tmp_path: Path, few: None, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spread, "pack_chunk", making.die)
        said = refused(tmp_path / "rows.jsonl", making.pairs(60), 2)
        assert said.startswith("DataError: a process that tokenizes rows was ended")
        assert "threads=1" in said
        assert not list(cache.iterdir())

    def test_few_rows_need_no_other_process(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(build, "pack_in_processes", None)
        assert len(making.tokens(tmp_path / "rows.jsonl", making.pairs(600), workers=4)) == 600
        monkeypatch.setattr(build, "_ALONE", build.CHUNK)
        assert len(making.tokens(tmp_path / "rows.jsonl", making.pairs(build.CHUNK), workers=4)) == build.CHUNK

    def test_chunks_make_no_difference(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """Also where the template rewrites history, which the renderer remembers from row to row."""
        talk = [{"role": role, "content": word} for role, word in zip(["user", "assistant"] * 2, "aBcD", strict=True)]
        rows = [{"messages": talk}] * 5 + [{"messages": talk[:2]}] * 4 + [{"messages": talk}] * 6
        by = making.renderer(making.REWRITING)
        one = making.files(first := making.tokens(tmp_path / "rows.jsonl", rows, by=by))
        (cache / first.folder.name).rename(cache / "aside")
        monkeypatch.setattr(build, "CHUNK", 2)
        assert making.files(making.tokens(tmp_path / "rows.jsonl", rows, by=by)) == one

    def test_other_processes_load_no_torch(self) -> None:
        """Importing torch would take seconds and 200 MB in each worker, which is sent a pickled task."""
        parser = Parser("conversation")
        parser.start(Origin("rows.jsonl", 1), {"prompt": "q", "completion": "a"})
        sent = pickle.dumps(
            (spread.pack_chunk, spread._start_worker, Task(parser, making.renderer(), making.section("x")))
        )
        code = "import pickle, sys; pickle.load(sys.stdin.buffer); print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)
        assert done.stdout.strip() == b"False"


class TestCache:
    def test_what_has_not_changed_is_found(self, tmp_path: Path, builds: list[str]) -> None:
        path = making.write(tmp_path / "rows.jsonl", making.pairs(5))
        section = making.section(path)
        first = tokenize(section, ["conversation"], making.renderer())
        again = tokenize(section, ["conversation"], making.renderer())
        os.utime(path, (1, 1))
        touched = tokenize(section, ["conversation"], making.renderer(), workers=2)
        assert first.folder == again.folder == touched.folder
        assert len(builds) == 1

    @pytest.mark.parametrize(
        "key", [{"weight": 2.0}, {"limit": 3}, {"holdout": 0.5}], ids=["weight", "limit", "holdout"]
    )
    def test_what_is_chosen_of_the_rows_makes_no_other_tokens(
        self, tmp_path: Path, builds: list[str], key: dict[str, Any]
    ) -> None:
        path = making.write(tmp_path / "rows.jsonl", making.pairs(5))
        tokenize(making.section(path), ["conversation"], making.renderer())
        tokenize(making.section(path, **key), ["conversation"], making.renderer())
        assert len(builds) == 1

    def test_what_has_changed_is_made_anew(
        self, tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Content, file name, slice, columns, skipped rows, format, template, tokenizer, emptiness, kind, code."""
        rows = making.pairs(5)
        path = making.write(tmp_path / "rows.jsonl", rows)
        seen: set[Path] = set()

        def make(section: DataConfig, by: Renderer | None = None, want: Any = "conversation", **more: Any) -> Tokenized:
            made = tokenize(section, [want], by or making.renderer(), **more)
            assert made.folder not in seen
            assert len(builds) == len(seen) + 1
            seen.add(made.folder)
            return made

        make(making.section(path))
        make(making.section(making.write(tmp_path / "other.jsonl", rows)))
        make(making.section(path, rows="0:4"))
        make(making.section(path, columns={"prompt": "completion", "completion": "prompt"}))
        make(making.section(path, skip=["empty"]))
        make(making.section(path, merge_turns=True))
        make(making.section(path, ignore=["id"]))
        make(making.section(path, format="pair"))
        make(making.section(path, identical_pairs="drop"))
        make(making.section(path), want="prompt")
        make(making.section(path), allow_empty=True)
        make(making.section(path), by=making.renderer(making.REWRITING))
        make(making.section(path), by=making.renderer(eos="<|endoftext|>"))
        added = making.renderer()
        added.tokenizer.add_tokens(["market"])
        make(making.section(path), by=Renderer(added.tokenizer))
        changed = make(making.section(making.write(path, [*rows[:4], {**rows[4], "completion": "Other."}])))
        assert "Other." in changed.parts(4)[1][0][1]
        monkeypatch.setattr(build, "code_version", lambda: "another")
        make(making.section(path))
        monkeypatch.setattr(build, "version", lambda _: "another")
        make(making.section(path))

    def test_a_rewritten_file_of_the_same_size_and_time_is_noticed(self, tmp_path: Path, builds: list[str]) -> None:
        path = making.write(tmp_path / "rows.jsonl", [{"prompt": "q", "completion": "old"}])
        stamp = path.stat()
        tokenize(making.section(path), ["conversation"], making.renderer())
        making.write(path, [{"prompt": "q", "completion": "new"}])
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert tokenize(making.section(path), ["conversation"], making.renderer()).parts(0)[1] == [["assistant", "new"]]

    @pytest.mark.parametrize("name", [*FILES, "meta.json"])
    def test_a_damaged_entry_is_made_again(self, tmp_path: Path, builds: list[str], name: str) -> None:
        first = making.tokens(tmp_path / "rows.jsonl", making.pairs(5))
        whole, before = making.files(first), first.example(3)
        path = first.folder / name
        for damage in (whole[name][:-1], whole[name][:9] + b"\xff" + whole[name][10:], b""):
            path.write_bytes(damage)
            again = making.tokens(tmp_path / "rows.jsonl", making.pairs(5))
            assert again.example(3) == before
            assert making.files(again) == whole
        path.unlink()
        assert making.files(making.tokens(tmp_path / "rows.jsonl", making.pairs(5))) == whole
        assert builds == [first.folder.name] * 5

    def test_every_module_that_makes_tokens_counts_as_code(self) -> None:
        """Or a newer version would go on with what an older one made."""
        code = "import sys, trueup.data.tokens.pack; print(*(m for m in sys.modules if m.startswith('trueup.')))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        words = {"trueup.errors", "trueup.data"} | {
            f"trueup.system{part}" for part in ("", ".commandline", ".console", ".text")
        }  # what is said of rows makes none
        words |= {"trueup.system.files"}  # nor does where they lie
        stores = {f"trueup.data.votes{part}" for part in ("", ".header", ".schema")}
        shares = {f"trueup.stats{part}" for part in ("", ".intervals", ".pivots")}
        modules = set(done.stdout.split()) - words - stores - shares
        modules -= {name for name in modules if re.match(r"trueup\.config(?!\.sections)", name)}
        counted = [part.removesuffix(".py").replace("/", ".") for part in build.CODE]
        left = [one for one in modules if not any(f"{one}.".startswith(f"trueup.{part}.") for part in counted)]
        assert "trueup.data.rendering" in modules
        assert left == []

    def test_the_code_is_a_hash_of_files_that_are_there(self) -> None:
        root = Path(trueup.__file__).parent
        assert all((root / part).exists() for part in build.CODE)
        assert len(build.code_version()) == 64

    def test_names_of_hub_data_sets_are_asked_for_their_commit(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """If the hub cannot be reached, the rows are tokenized again in each run."""
        monkeypatch.chdir(tmp_path)
        assert build._content("nobody/nothing") is None  # HF_HUB_OFFLINE is set for tests
        path = making.write(tmp_path / "rows.jsonl", making.pairs(3))
        monkeypatch.setattr(build, "_content", lambda _: None)
        one, other = (tokenize(making.section(path), ["conversation"], making.renderer()) for _ in range(2))
        assert one.folder.name.startswith(f"once-{os.getpid()}-")
        assert one.folder != other.folder
        assert one.example(2) == other.example(2)


class TestFolder:
    def test_an_error_leaves_nothing(self, tmp_path: Path, cache: Path) -> None:
        refused(tmp_path / "rows.jsonl", [*making.pairs(3), "{oops"], 1)
        assert list(cache.iterdir()) == []

    def test_ctrl_c_leaves_nothing(self, tmp_path: Path, cache: Path) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        path = making.write(tmp_path / "rows.jsonl", making.pairs(3))
        with pytest.raises(KeyboardInterrupt):
            tokenize(making.section(path), ["conversation"], making.renderer(), tick=interrupt)
        assert list(cache.iterdir()) == []

    def test_two_builds_at_once(self, tmp_path: Path, cache: Path) -> None:
        path = making.write(tmp_path / "rows.jsonl", making.pairs(40))
        renderers, together = [making.renderer() for _ in range(4)], Barrier(4)

        def make(by: Renderer) -> Tokenized:
            together.wait()
            return tokenize(making.section(path), ["conversation"], by, tick=lambda *_: time.sleep(0.01))

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(make, renderers))
        assert {one.folder for one in made} == {cache / made[0].folder.name}
        assert [one.example(39) for one in made] == [made[0].example(39)] * 4
        assert [one.name for one in cache.iterdir()] == [made[0].folder.name]

    @pytest.mark.parametrize("damaged", [False, True])
    def test_another_process_is_done_first(self, tmp_path: Path, cache: Path, damaged: bool) -> None:
        path = making.write(tmp_path / "rows.jsonl", making.pairs(4))
        others: list[Tokenized] = []

        def meanwhile(*_: object) -> None:
            others.append(tokenize(making.section(path), ["conversation"], making.renderer()))
            if damaged:
                (others[0].folder / "tokens.u32").write_bytes(b"half")

        mine = tokenize(making.section(path), ["conversation"], making.renderer(), tick=meanwhile)
        assert mine.folder == others[0].folder
        assert Tokenized(mine.folder).example(3) == mine.example(3)
        assert len(list(cache.iterdir())) == 1

    @pytest.mark.parametrize("place", ["file", "file/below", "/proc/trueup"])
    def test_a_place_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / place))
        said = refused(tmp_path / "rows.jsonl", making.pairs(3), 1)
        assert said.startswith(f"DataError: {tmp_path / place}")
        assert "tokenized data cannot be kept there: " in said
        assert said.endswith("fix: set TRUEUP_CACHE to a folder that can be written")

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
    def test_a_cache_of_somebody_elses_is_read(self, tmp_path: Path, cache: Path, builds: list[str]) -> None:
        made = making.tokens(tmp_path / "rows.jsonl", making.pairs(3))
        for folder in (made.folder, cache):
            folder.chmod(0o555)
        try:
            making.tokens(tmp_path / "rows.jsonl", making.pairs(3))
            assert len(builds) == 1
        finally:
            for folder in (cache, made.folder):
                folder.chmod(0o755)

    def test_a_time_that_cannot_be_set_is_no_reason_to_build(
        self, tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        making.tokens(tmp_path / "rows.jsonl", making.pairs(3))

        def not_ours(*_: object, **__: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "utime", not_ours)
        making.tokens(tmp_path / "rows.jsonl", making.pairs(3))
        assert len(builds) == 1

    def test_a_file_that_grows_while_it_is_read(self, tmp_path: Path, cache: Path) -> None:
        path = making.write(tmp_path / "rows.jsonl", making.pairs(3))

        def grow(*_: object) -> None:
            with path.open("a") as handle:
                handle.write('{"prompt": "late", "completion": "row"}\n')

        with pytest.raises(DataError, match="changed while it was read"):
            tokenize(making.section(path), ["conversation"], making.renderer(), tick=grow)
        assert list(cache.iterdir()) == []
        assert len(tokenize(making.section(path), ["conversation"], making.renderer())) == 4


def aged(path: Path, days: float) -> Path:
    """The folder (made if need be) and all in it, as if nothing had touched it for so many days."""
    path.mkdir(parents=True, exist_ok=True)
    then = time.time() - days * DAY
    for one in [*path.iterdir(), path]:
        os.utime(one, (then, then))
    return path


class TestTidying:
    def test_old_entries_go_and_all_else_stays(self, tmp_path: Path, cache: Path) -> None:
        old = aged(making.tokens(tmp_path / "old.jsonl", making.pairs(3)).folder, 31)
        used = aged(making.tokens(tmp_path / "used.jsonl", making.pairs(3)).folder, 29)
        once, fresh_once = aged(cache / "once-12-345", 1.1), aged(cache / "once-12-346", 0.9)
        half, fresh_half = aged(cache / f".{'a' * 32}-0123abcd", 1.1), aged(cache / f".{'a' * 32}-0123abce", 0.9)
        theirs = [aged(cache / name, 400) for name in ("notes", "tokens-2024", "a" * 31, f"{'a' * 32}.bak", ".git")]
        making.tokens(tmp_path / "new.jsonl", making.pairs(3))
        assert [path.exists() for path in (old, once, half)] == [False] * 3
        assert all(path.exists() for path in (used, fresh_once, fresh_half, *theirs))

    def test_to_find_an_entry_is_to_use_it(self, tmp_path: Path) -> None:
        folder = aged(making.tokens(tmp_path / "rows.jsonl", making.pairs(3)).folder, 31)
        making.tokens(tmp_path / "rows.jsonl", making.pairs(3))
        making.tokens(tmp_path / "new.jsonl", making.pairs(4))
        assert folder.exists()

    def test_an_entry_that_another_process_trains_on_can_be_read_on(self, tmp_path: Path) -> None:
        held = making.tokens(tmp_path / "rows.jsonl", making.pairs(3))
        aged(held.folder, 40)
        making.tokens(tmp_path / "new.jsonl", making.pairs(4))
        assert not held.folder.exists()
        assert held.prompt(2)[0].content == making.pairs(3)[2]["prompt"]
        assert held.example(2).longest > 20

    def test_an_entry_that_is_written_for_days_stays(self, tmp_path: Path, cache: Path) -> None:
        """The folder's own time stands still while its files grow."""
        half = aged(cache / f".{'b' * 32}-0123abcd", 3)
        (half / "tokens.u32").touch()
        os.utime(half, (1, 1))
        making.tokens(tmp_path / "new.jsonl", making.pairs(3))
        assert half.exists()

    def test_entries_may_vanish_meanwhile(self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for letter in "ab":
            aged(cache / (letter * 32), 1)
        real = Path.iterdir

        def vanishing(self: Path) -> Any:
            for one in real(self):
                if len(one.name) == 32:
                    one.rmdir()
                yield one

        monkeypatch.setattr(Path, "iterdir", vanishing)
        build._remove_old(cache)
        assert list(real(cache)) == []
