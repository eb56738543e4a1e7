"""`trueup rank`: STORE.db alone serves the page; export, import and results are subcommands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from trueup.cli import commands
from trueup.cli.commands import Job
from trueup.config.ranking import RankConfig
from trueup.config.sections import Section

if TYPE_CHECKING:
    from typer import Context

_DEFAULT = "serve"


class _ServesByDefault(TyperGroup):
    """Command group of `trueup rank` with a default: `trueup rank votes.db` means `trueup rank serve votes.db`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Parse the arguments, with the command `serve` put before them if they name no command."""
        if not args:
            args = ["--help"]
        elif args[0] not in (*self.commands, "--help"):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ServesByDefault,
    help="People rank A against B in a page: trueup rank STORE.db --prompts FILE --model RUN",
    epilog="All options of the page: trueup rank serve --help",
    rich_markup_mode="rich",
)

StorePath = Annotated[Path, typer.Argument(metavar="STORE.db", help="The file that holds prompts, pairs and votes.")]

_PANELS = {
    "prompts": "What is ranked",
    "rater": "Who ranks",
    "temperature": "How answers are drawn",
    "host": "Where it runs",
}
"""The first option under each heading of the help."""
_METAVARS = {"model": "RUN", "reward": "RUN", "rater": "NAME", "name": "HOST"}
_TYPES: dict[str, object] = {"integer": int, "number": float, "string": str, "array": list[str]}


def _options(config: type[Section]) -> Iterator[Parameter]:
    """Yield a command-line option for every key of a configuration class; an option that is not given is None."""
    panel = ""
    for key, schema in config.model_json_schema()["properties"].items():
        value = schema.get("anyOf", [schema])[0]  # without null
        kind = Literal[tuple(value["enum"])] if "enum" in value else _TYPES[value["type"]]
        panel, default = _PANELS.get(key, panel), schema.get("default")
        option = typer.Option(
            f"--{key.replace('_', '-')}",
            metavar=_METAVARS.get(key),
            help=schema["description"] + (rf" \[default: {default}]" if default is not None else ""),
            min=value.get("minimum"),
            max=value.get("maximum"),
            rich_help_panel=panel,
        )
        annotation = Annotated[kind | None, option]  # pyright: ignore[reportInvalidTypeForm] -- built at run time
        yield Parameter(key, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _with_options(config: type[Section]) -> Callable[[Callable[..., Job]], Callable[..., Job]]:
    """Return a decorator that gives a command with `**options` a Typer option for each key of a configuration class."""

    def decorate(command: Callable[..., Job]) -> Callable[..., Job]:
        declared = signature(command, eval_str=True)
        named = [parameter for parameter in declared.parameters.values() if parameter.kind is not Parameter.VAR_KEYWORD]
        parameters = [*named, *_options(config)]
        command.__signature__ = declared.replace(parameters=parameters)  # pyright: ignore[reportFunctionMemberAccess]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


@app.command(_DEFAULT)
@_with_options(RankConfig)
def serve(
    store: StorePath,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value", help="Settings: the options' names with _, such as pairs_per_prompt=2."),
    ] = None,
    *,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of settings; `trueup config rank` prints one.")
    ] = None,
    **options: Any,
) -> Job:
    """Serve the page. A store that does not exist is created; the same command continues with it."""
    chosen_options = {key: value for key, value in options.items() if value not in (None, [])}
    return partial(commands.rank, store, config, settings or [], chosen_options)


@app.command("export")
def export(
    store: StorePath,
    output: Annotated[Path, typer.Argument(metavar="rankings.jsonl", help="The file to write.")],
    votes: Annotated[
        Literal["majority", "every"], typer.Option(help="One row a pair, by its majority; or one row a vote.")
    ] = "majority",
    form: Annotated[
        Literal["rankings", "verdicts"],
        typer.Option("--as", help="chosen and rejected; or completions labelled true and false (KTO)."),
    ] = "rankings",
    edits: Annotated[
        Path | None, typer.Option(metavar="sft.jsonl", help="Write the edited answers too, as conversations.")
    ] = None,
    margin: Annotated[bool, typer.Option("--margin", help="The mean strength of preference as `margin`.")] = False,
    gold: Annotated[bool, typer.Option("--gold", help="The gold pairs too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> Job:
    """Write the votes as rows that every stage reads, each with its provenance.

    STORE.db@1200 is the store as of its event 1200.
    """
    return partial(
        commands.rank_export, store, output, votes=votes, form=form, edits=edits, margin=margin, gold=gold,
        force=force,
    )  # fmt: skip


@app.command("import")
def import_(
    store: StorePath,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rankings that people made elsewhere.")],
    rater: Annotated[str | None, typer.Option(metavar="NAME", help="The rater, where the file names none.")] = None,
) -> Job:
    """Import rankings: chosen/rejected rows, Chatbot Arena, Label Studio, Argilla, or our own export."""
    return partial(commands.rank_import, store, file, rater=rater)


@app.command("results")
def results(
    store: StorePath,
    html: Annotated[Path | None, typer.Option(help="Write the page as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> Job:
    """Show win rates, agreement, the raters' length bias, and how many more votes a decision needs.

    STORE.db@1200 is the store as of its event 1200.
    """
    return partial(commands.rank_results, store, html=html, as_json=as_json)
