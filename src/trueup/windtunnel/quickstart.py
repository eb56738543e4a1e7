"""The command `trueup quickstart`: the whole pipeline in the wind tunnel, a small world of known truth.

It writes the world's files and runs the same pipeline that users run (`windtunnel/quickstart.yaml`, copied into the
folder), evaluation, gates and report included. As the truth is known, the gold reward is measured with the proxy.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from trueup.config import PipelineConfig, load_config
from trueup.evaluation.gate_power import announce, pipeline_gates, require_passable
from trueup.recipes import pipeline
from trueup.report.report_schema import Report
from trueup.system.commandline import command
from trueup.system.console import Progress, quiet_libraries
from trueup.system.files import atomic_write_text
from trueup.system.text import clean
from trueup.windtunnel import World, build
from trueup.windtunnel.model import pipeline_text

TITLE = "A small world of known truth"


def run(folder: Path, seed: int = 0, settings: Sequence[str] = ()) -> Report | None:
    """Build the world, run the pipeline, measure the models and print some of their answers. Returns the report.

    Args:
        folder: the folder of world and runs; finished stages in it that are unchanged are not run again.
        seed: the seed of the world and of every stage.
        settings: `key=value` settings over the quickstart's pipeline.
    """
    started = time.perf_counter()
    quiet_libraries()
    progress = Progress()
    progress.note(f"building the world in {folder / 'world'}")
    world = build(folder / "world", seed=seed)
    config = configure(world, folder, [f"seed={seed}", *settings])
    gates = pipeline_gates(config)
    require_passable(gates, config.allow)
    announce(gates, progress.note, progress.warn)
    pipeline.run_stages(config, progress)
    report = pipeline.evaluate(config, progress, f"trueup quickstart {folder} --seed {seed}", TITLE)
    if report is not None:
        _show_answers(report)
        print(f"\n{time.perf_counter() - started:.0f} s in all; everything is in {clean(str(folder))}. Next:")
        print(f"  {clean(command(['chat', str(config.folder / 'ppo')]))}")
        print("and, with changes in its pipeline.yaml:")
        print(f"  {clean(command(['run', str(folder / 'pipeline.yaml')]))}")
    return report


def configure(world: World, folder: Path, settings: Sequence[str]) -> PipelineConfig:
    """Write the quickstart's pipeline to pipeline.yaml in `folder`, where the user can edit it, and load it."""
    template = resources.files("trueup.windtunnel").joinpath("quickstart.yaml").read_text(encoding="utf-8")
    path = folder / "pipeline.yaml"
    atomic_write_text(path, pipeline_text(template, world.folder, folder))
    return load_config(PipelineConfig, path, list(settings))


def _show_answers(report: Report) -> None:
    """Print the first capability questions of the report, each with every model's answer."""
    for sample in [sample for sample in report.samples if sample.task == "capability"][:4]:
        print(f"\n> {clean(sample.prompt, one_line=True)[:300]}")
        for name, answer in sample.answers.items():
            print(f"  {clean(name, one_line=True):>5}: {clean(answer.text, one_line=True)[:300]}")
