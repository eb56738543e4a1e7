"""The command line. Each command parses its arguments and returns a job: a function that does the work.

`main` runs the job inside the one place where errors become messages. So a wrong key, a missing file or `--help` is
answered before torch, which takes seconds, is imported.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from trueup.cli import commands, rank
from trueup.cli.commands import Job
from trueup.cli.failures import error_message
from trueup.errors import Interrupted, LostPeerError, is_panic
from trueup.system.console import quiet_libraries
from trueup.system.interrupt import Quit, quit_on_ctrl_c
from trueup.system.text import clean, masked

app = typer.Typer(
    name="trueup",
    help="From a base language model and your data to an aligned model, with what it gained and what it cost.",
    epilog="A first look without any data or model: trueup quickstart",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

START, TRAIN, USE = "Start here", "Train one stage, in this order", "Evaluate and use"

ConfigFile = Annotated[
    str | None, typer.Argument(metavar="CONFIG.yaml", help="A configuration; `trueup config METHOD` prints one.")
]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="key=value", help="Settings over the file's, such as optim.lr=1e-5.")
]


LARGEST_SEED = 2**63 - 1


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"trueup {metadata.version('trueup')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """From a base language model and your data to an aligned model, with what it gained and what it cost."""
    del debug, version  # `main` takes --debug out of the arguments, so that it may also stand after the command


@app.command(rich_help_panel=START)
def quickstart(
    folder: Annotated[Path, typer.Argument(help="The folder of the run.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="The seed of every random number.")] = 0,
) -> Job:
    """Train and align a tiny model in a small world of known truth: no download, no GPU, a few minutes."""
    return partial(commands.quickstart, folder, seed)


@app.command(rich_help_panel=START)
def run(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE.yaml", help="`trueup config pipeline` prints one.")],
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check everything and print the plan.")] = False,
    force: Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Run this stage again; repeatable.")] = None,
) -> Job:
    """Run a file of stages in order, skipping those that are done."""
    return partial(commands.run_pipeline, Path(pipeline), settings or [], dry_run=dry_run, force=force or [])


@app.command(rich_help_panel=START)
def config(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="pipeline, sft, reward, dpo, ppo, evaluate or rank.")],
) -> Job:
    """Print a configuration to fill in: every key with its default and its help."""
    return partial(commands.print_template, method)


@app.command(rich_help_panel=START)
def check(
    target: Annotated[str, typer.Argument(metavar="CONFIG.yaml|DATA", help="A configuration, or a data file.")],
    settings: Settings = None,
    model: Annotated[str | None, typer.Option(help="The model whose tokenizer reads a data file.")] = None,
    method: Annotated[
        str | None, typer.Option(help="sft, reward, dpo or ppo, for a file that does not say which.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 on warnings too.")] = False,
) -> Job:
    """Check data, template and models for faults that would silently spoil a training.

    Exits with 0, or with 3 (data) or 4 (models) where a training would be refused.
    """
    return partial(commands.check, target, settings or [], model, method, as_json=as_json, strict=strict)


@app.command(rich_help_panel=START)
def plan(
    target: Annotated[
        str | None, typer.Argument(metavar="CONFIG.yaml", help="A pipeline, or a configuration of `trueup evaluate`.")
    ] = None,
    settings: Settings = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="GATE=LIMIT", help="A gate's limit, such as capability_drop=0.03; may be repeated."),
    ] = None,
    items: Annotated[
        list[str] | None,
        typer.Option("-n", "--items", metavar="GATE=N", help="A gate's number of items, if not the sets'; repeatable."),
    ] = None,
    discordance: Annotated[
        float | None,
        typer.Option(min=0.001, max=1.0, help="The share of items that an unchanged model answers otherwise."),
    ] = None,
    spread: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GATE=VALUE",
            help="What is expected of one gate: the standard deviation of paired differences, of lengths over their "
            "mean, the share of ties; may be repeated.",
        ),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many models of which any may ship.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> Job:
    """Compute how many items each gate needs so that an unchanged model passes it, without any model.

    Without a configuration it is for the sets of trueup and the limits given, or else those of `gates: default`.
    Exits with 0, or with 2 if a gate cannot pass.
    """
    return partial(
        commands.plan, target, settings or [], limits=limit or [], items=items or [], discordance=discordance,
        spreads=spread or [], candidates=candidates, as_json=as_json,
    )  # fmt: skip


@app.command(rich_help_panel=START)
def show(
    target: Annotated[str, typer.Argument(metavar="CONFIG.yaml|DATA", help="A configuration, or a data file.")],
    settings: Settings = None,
    model: Annotated[str | None, typer.Option(help="The model whose tokenizer reads a data file.")] = None,
    method: Annotated[
        str | None, typer.Option(help="sft, reward, dpo or ppo, for a file that does not say which.")
    ] = None,
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, help="How many rows.")] = 3,
    tokens: Annotated[bool, typer.Option("--tokens", help="One line a token, with its position and id.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page as well.")] = None,
) -> Job:
    """Show the rows as the model gets them: tokens, which of them are trained, special tokens, positions."""
    return partial(commands.show, target, settings or [], model, method, rows=rows, tokens=tokens, html=html)


@app.command(rich_help_panel=TRAIN)
def sft(config: ConfigFile = None, settings: Settings = None) -> Job:
    """Supervised fine-tuning: learn to answer from instructions and answers."""
    return partial(commands.train, "sft", config, settings or [])


@app.command(rich_help_panel=TRAIN)
def reward(config: ConfigFile = None, settings: Settings = None) -> Job:
    """Reward model: learn from rankings A > B which answers people prefer."""
    return partial(commands.train, "reward", config, settings or [])


@app.command(rich_help_panel=TRAIN)
def dpo(config: ConfigFile = None, settings: Settings = None) -> Job:
    """Direct preference optimisation: learn from rankings without a reward model."""
    return partial(commands.train, "dpo", config, settings or [])


@app.command(rich_help_panel=TRAIN)
def ppo(config: ConfigFile = None, settings: Settings = None) -> Job:
    """Reinforcement learning from the reward model, or from a function, with a KL penalty."""
    return partial(commands.train, "ppo", config, settings or [])


@app.command(rich_help_panel=USE)
def evaluate(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... key=value...",
            help="Run folders or models, compared with the first; then settings: `trueup config evaluate`.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("runs/evaluation"),
    config: Annotated[Path | None, typer.Option(help="A file of settings.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")] = None,
    strategy: Annotated[str, typer.Option(help="How several processes share work: auto, ddp, fsdp.")] = "auto",
) -> Job:
    """Measure models side by side: what alignment gained, what it cost, and whether to ship.

    Exits with 0 (SHIP, or no gates), 8 (HOLD) or 9 (NOT SHOWN).
    """
    return partial(
        commands.evaluate, runs, output, config, device=device, dtype=dtype, threads=threads, strategy=strategy
    )


@app.command(rich_help_panel=USE)
def audit(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="A B... key=value...",
            help="Models, compared with the first: run folders, folders, adapters, .gguf files, hub names or endpoints "
            "(http://host/v1#name); then settings: `trueup config evaluate`.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("runs/audit"),
    config: Annotated[Path | None, typer.Option(help="A file of settings.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")] = None,
    strategy: Annotated[str, typer.Option(help="How several processes share work: auto, ddp, fsdp.")] = "auto",
    workflow: Annotated[
        bool, typer.Option("--workflow", help="Only write .github/workflows/trueup-audit.yml, which runs this in CI.")
    ] = False,
) -> Job:
    """Say if B is as good as A, and what it lost: any two models, whoever trained them, with default sets and limits.

    Exits with 0 (SHIP), 8 (HOLD) or 9 (NOT SHOWN).
    """
    return partial(
        commands.audit, models, output, config, device=device, dtype=dtype, threads=threads, strategy=strategy,
        workflow=workflow,
    )  # fmt: skip


app.add_typer(rank.app, name="rank", rich_help_panel=USE)


@app.command(rich_help_panel=USE)
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of `trueup run` or `trueup evaluate`.")],
    output: Annotated[
        Path | None, typer.Option(help=r"The folder to write to. \[default: the run; of several: runs/evaluation]")
    ] = None,
) -> Job:
    """Write the report of a run again, or compare several runs in one report, from their files alone."""
    return partial(commands.report, runs, output)


@app.command(rich_help_panel=USE)
def experiment(
    name: Annotated[str, typer.Argument(metavar="NAME", help="reward-hacking")],
    folder: Annotated[Path | None, typer.Option(help=r"The folder of its runs. \[default: runs/NAME]")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=10**6, help="How many seeds.")] = 10,
    first_seed: Annotated[
        int, typer.Option(min=0, max=10**9, help="The first seed; the rules were set on 0 to 10.")
    ] = 11,
) -> Job:
    """Repeat an experiment in the small world of known truth, over many seeds (minutes each)."""
    return partial(commands.experiment, name, folder, seeds, first_seed)


@app.command(rich_help_panel=USE)
def chat(
    model: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder, a model folder, a .gguf file or a hub name.")
    ],
    against: Annotated[str | None, typer.Option(metavar="RUN", help="A second model, shown side by side.")] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system prompt.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, max=100.0, help="0 takes the likeliest token.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=10**9, help="The longest answer in tokens.")] = 256,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help=r"A text that ends an answer (\n: a new line); may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="The seed of all answers.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, mps or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")] = None,
    chat_template: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="A chat template instead of the model's: a file, chatml, …")
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A variable for the chat template; may be repeated."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="FAULT", help="pickled-weights, ignored-weights or constant-weights."),
    ] = None,
) -> Job:
    """Talk to a model, or to two side by side, and save conversations and rankings as data."""
    return partial(
        commands.chat, model, against, system=system, temperature=temperature, max_new_tokens=max_new_tokens,
        stop=stop or [], seed=seed, device=device, dtype=dtype, threads=threads, chat_template=chat_template,
        template=template or [], allow=allow or [],
    )  # fmt: skip


@app.command(rich_help_panel=USE)
def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    output: Annotated[
        Path | None, typer.Argument(help=r"The folder to write. \[default: export in the run folder]")
    ] = None,
    merge: Annotated[bool, typer.Option(help="Fold LoRA adapters into the weights.")] = True,
    dtype: Annotated[str, typer.Option(help="auto (as trained), float32, bfloat16 or float16.")] = "auto",
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the export, once it is verified.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
    ] = False,
) -> Job:
    """Write a trained model as a Hugging Face folder, and verify in a fresh process that it computes the same."""
    return partial(
        commands.export, run, output, merge=merge, dtype=dtype, push_to_hub=push_to_hub, private=private,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: the command's, or that of the error that ended it (errors.py)."""
    command_line = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in command_line if word != "--debug"]
    if words and words[0].lower() in _command_names():  # `trueup SFT`
        words[0] = words[0].lower()
    with quit_on_ctrl_c():
        return _run(words, debug=len(words) < len(command_line))


def _command_names() -> set[str]:
    named = (command.callback.__name__ for command in app.registered_commands if command.callback)
    return {*named, *(str(group.name) for group in app.registered_groups)}


def _run(words: list[str], *, debug: bool) -> int:
    try:
        job = app(words or ["--help"], prog_name="trueup", standalone_mode=False)
        if callable(job):
            quiet_libraries()  # before any of them is imported: some read their settings only then
            code: object = job()
            sys.stdout.flush()
            return _leave_processes(code if isinstance(code, int) else 0)
        if job == Interrupted.exit_code:  # Typer ends silently on Ctrl-C
            raise Quit
        return int(job) if isinstance(job, int) else 0
    except BrokenPipeError:
        # `trueup config sft | head`: the reader has ended, which is no error; nothing more can be written to stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:  # the one place where errors become messages
        if not isinstance(error, Exception | KeyboardInterrupt) and not is_panic(error):
            raise
        if debug and not hasattr(error, "format_message"):
            _print_error(traceback.format_exc())
        text, code = error_message(error, words[0] if words else "")
        _print_error(text)
        if isinstance(error, Quit):
            os._exit(code)  # at once: taking Python and torch down in order takes seconds
        # All ranks stop together; after another error the rest notice, or the launcher ends them.
        why = text if code != LostPeerError.exit_code else None
        return _leave_processes(code, together=isinstance(error, Interrupted), why=why)


def _leave_processes(code: int, *, together: bool = True, why: str | None = None) -> int:
    """Leave the process group of a `torchrun`, if torch was loaded and there is such a group. Returns the exit code.

    Args:
        code: the exit code.
        together: all processes stop here, so wait for the others.
        why: the message of this process's error, which the other processes then get.
    """
    if "trueup.runtime" in sys.modules and sys.modules["trueup.runtime"].shutdown(together=together, why=why):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the group's threads may outlive it, and abort an ordinary exit now and then
    return code


def _print_error(text: str) -> None:
    """Print a message to stderr as plain text, with secrets masked: it holds no markup and cannot move the cursor."""
    print(clean(masked(text)), file=sys.stderr, flush=True)
