"""Fuzzing what a run leaves and a later one reads: checkpoints, models, adapters, caches, and a report's folders.

One file of a finished run is broken, its reader called, and the file put back. Where a manifest or seal would refuse
the file before its reader sees it, half of the cases write the manifest anew.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from random import Random

import pytest
from campaign import SECONDS, Case, fuzz
from folders import files_of, finished, header_exchanged, resealed, retold
from mutation import JSON_TOKENS, YAML_TOKENS, exchanged_json, mutated

import tiny_data
from tiny import lora, tiny_network, tiny_tokenizer
from trueup.config import DataConfig, find_model
from trueup.config.paths import classifier_problem
from trueup.data.rendering.renderer import Renderer
from trueup.data.tokens.build import tokenize
from trueup.errors import ModelError
from trueup.models.loading import load_causal_lm, load_classifier, load_tokenizer, read_config
from trueup.recipes.reference import with_reference
from trueup.report import reading, terminal
from trueup.report.build import build, read_measured
from trueup.report.card import model_card
from trueup.report.page import render
from trueup.report.stages import alarms, curves, points, stage_run
from trueup.runs.checkpoint import latest_checkpoint
from trueup.runs.folder import RunFolder
from trueup.runs.state import read_state
from trueup.runtime import init
from trueup.system.console import quiet_libraries

Reader = Callable[[Path, bool], object]
"""Called with the broken file, and whether what guards it is to be mended."""


class Fixture:
    """The finished pipeline, and the reader of each of its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = finished(folder)
        self.runtime = init("cpu", "float32", 1)
        self.files: dict[str, list[Path]] = {}
        self.readers: dict[str, Reader] = {}
        self._light()
        self._caches()
        self._models()
        self._report()
        self.content = {path: path.read_bytes() for found in self.files.values() for path in found}
        self.every = [data for data in self.content.values() if len(data) < 20_000]

    def _light(self) -> None:
        steps = sorted((self.run / "dpo" / "checkpoints").iterdir())
        self.files["checkpoint"] = files_of(steps[-1])
        self.readers["checkpoint"] = self.read_checkpoint
        self.files["state"] = [path for path in files_of(*steps) if path.name != "manifest.json"]
        self.readers["state"] = lambda path, _: read_state(path.parent, path.stem)
        self.files["summary"] = [self.run / "sft" / "summary.json"]
        self.readers["summary"] = lambda path, _: RunFolder(path.parent).read_summary()
        spare = self.folder / "spare"
        shutil.copytree(self.run / "dpo", spare, ignore=shutil.ignore_patterns("model", "tensorboard"))
        self.files["run"] = [*spare.glob("*.jsonl"), *spare.glob("*.yaml"), spare / ".lock"]
        self.readers["run"] = self.open_run

    def read_checkpoint(self, path: Path, mend: bool) -> None:
        if mend and path.name != "manifest.json":
            resealed(path.parent)
        found = latest_checkpoint(RunFolder(path.parent.parent.parent))
        assert found is not None
        for name in sorted(found.parts):
            found.part(name)

    def open_run(self, path: Path, mend: bool) -> None:
        text = (self.run / "dpo" / "config.yaml").read_text()
        with RunFolder.create(path.parent, text) as run:
            run.truncate_metrics(1 if mend else 0)

    def _caches(self) -> None:
        self.network = tiny_network(self.folder / "base")
        self.network.add_trainable("policy", lora())
        self.network.add_reference()
        self.rows = tokenize(self._rows(), ["preference"], Renderer(tiny_tokenizer()))
        self.files["tokens"] = files_of(self.rows.folder)
        self.readers["tokens"] = self.read_tokens
        self.examples = [self.rows.example(row) for row in range(len(self.rows))]
        cache = self.folder / "reference-data.safetensors"
        with_reference(self.network, self.examples, cache, max_tokens=512)
        self.files["reference"] = [cache]
        self.readers["reference"] = self.read_reference

    def _rows(self) -> DataConfig:
        return DataConfig.model_validate(tiny_data.data(self.folder, "rankings", 8))

    def read_tokens(self, path: Path, mend: bool) -> None:
        if mend:
            retold(path.parent, path.name)
        found = tokenize(self._rows(), ["preference"], Renderer(tiny_tokenizer()))
        for row in range(len(found)):
            found.example(row)
            found.origin(row)
            found.prompt(row)
        list(found.records())

    def read_reference(self, path: Path, _: bool) -> None:
        scored = with_reference(self.network, self.examples, path, max_tokens=512)
        assert all("ref_logps" in branch.scalars for one in scored for branch in one.branches)

    def _models(self) -> None:
        self.files["model"] = files_of(self.run / "sft" / "model")
        self.readers["model"] = self.read_model
        self.files["adapter"] = files_of(self.run / "sft" / "adapter")
        self.readers["adapter"] = self.read_adapter
        self.files["classifier"] = files_of(self.run / "reward" / "model")
        self.readers["classifier"] = self.read_classifier

    def read_model(self, path: Path, _: bool) -> None:
        folder = path.parent
        find_model(str(folder))
        read_config(folder)
        if path.suffix != ".safetensors":
            Renderer(load_tokenizer(str(folder)))
        if path.name not in ("tokenizer.json", "tokenizer_config.json"):
            load_causal_lm(str(folder), self.runtime)

    def read_adapter(self, path: Path, _: bool) -> None:
        find_model(str(path.parent))
        load_causal_lm(str(path.parent), self.runtime)

    def read_classifier(self, path: Path, _: bool) -> None:
        if problem := classifier_problem(path.parent):
            raise ModelError(problem)
        load_classifier(str(path.parent), self.runtime)

    def _report(self) -> None:
        """`build` draws thousands of samples to make its intervals: what only reads is fuzzed more often."""
        measured = files_of(self.run / "evaluation")
        of_stages = [one for stage in ("sft", "reward", "dpo") for one in (self.run / stage).glob("*.[jy]*")]
        self.plan = reading.plan(self.run / "evaluation")
        self.files |= {"measured": measured, "stage": of_stages}
        self.readers["measured"] = lambda _path, _: read_measured(self.run / "evaluation")
        self.readers["stage"] = self.read_stage
        for kind, read in (("report", build), ("page", self.show)):
            self.files[kind] = [*measured, *of_stages]
            self.readers[kind] = lambda _path, _, read=read: read(self.run)

    def read_stage(self, path: Path, _: bool) -> None:
        for read in (curves, alarms, stage_run):
            read("a", path.parent)
        points("a", path.parent, self.plan)

    def show(self, run: Path) -> None:
        report = build(run)
        render(report)
        with redirect_stdout(StringIO()):
            terminal.show(report)
        for stage in report.stages:
            model_card(report, stage.name, base=stage.base, method=stage.method)

    # -- cases ---------------------------------------------------------------------------------------------------

    def draw(self, kinds: list[str], chance: Random) -> Case:
        """A broken file of one of the kinds."""
        kind = chance.choice(kinds)
        path = chance.choice(self.files[kind])
        data, way = self.content[path], chance.random()
        if path.suffix in (".json", ".jsonl") and way < 0.6:
            data = exchanged_json(data, chance, lines=path.suffix == ".jsonl")
        elif path.suffix == ".safetensors" and way < 0.6:
            data = header_exchanged(data, chance)
        else:
            data = mutated(data, chance, self.every, YAML_TOKENS if path.suffix == ".yaml" else JSON_TOKENS)
        return Case(kind, data, (str(path.relative_to(self.folder)), chance.choice(("", "mended"))))

    def check(self, case: Case) -> None:
        """Break the file, read it, put it back."""
        path = self.folder / case.words[0]
        beside = path.parent if case.kind in ("checkpoint", "tokens") else None
        before = {one: one.read_bytes() for one in beside.iterdir()} if beside else {}
        path.write_bytes(case.data)
        try:
            self.readers[case.kind](path, bool(case.words[1]))
        finally:
            path.parent.mkdir(exist_ok=True)
            for one, data in before.items():
                one.write_bytes(data)
            path.write_bytes(self.content[path])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fixture]:
    folder = tmp_path_factory.mktemp("folders").resolve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUEUP_CACHE", str(folder / "cache"))
        patch.setattr(tempfile, "tempdir", str(folder))
        quiet_libraries()
        yield Fixture(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what libraries say of a model's odd settings
@pytest.mark.parametrize(
    ("kinds", "share"),
    [
        (("checkpoint", "state", "summary", "run"), 0.3),
        (("tokens", "reference"), 0.1),
        (("model", "adapter", "classifier"), 0.3),
        (("measured", "stage"), 0.15),
        (("report", "page"), 0.15),
    ],
    ids=["checkpoint", "tokens", "models", "reading", "report"],
)
def test_no_file_of_a_run_breaks_its_reader(kinds: tuple[str, ...], share: float, folders: Fixture) -> None:
    fuzz(kinds[0], lambda chance: folders.draw(list(kinds), chance), folders.check, folders.folder, SECONDS * share)
