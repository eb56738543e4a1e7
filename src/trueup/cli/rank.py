"""`trueup rank`: STORE.db alone serves the page; export, import and results are commands beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer.core import TyperGroup

from trueup.cli import commands

if TYPE_CHECKING:
    from typer import Context

Job = Callable[[], int | None]

_DEFAULT = "serve"


class _ServesByDefault(TyperGroup):
    """`trueup rank votes.db --port 8100` means `trueup rank serve votes.db --port 8100`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Put the default command where none is named."""
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

Store = Annotated[Path, typer.Argument(metavar="STORE.db", help="The file that holds prompts, pairs and votes.")]

WHAT, WHO, HOW, WHERE = "What is ranked", "Who ranks", "How answers are drawn", "Where it runs"


@app.command(_DEFAULT)
def serve(
    store: Store,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts to answer by --model; any format of data.", rich_help_panel=WHAT)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="Who answers; one twice, or several blind.", rich_help_panel=WHAT),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Pairs that are answered already: chosen/rejected, or a/b.", rich_help_panel=WHAT),
    ] = None,
    gold: Annotated[
        Path | None,
        typer.Option(help="Pairs whose better answer (chosen) is known, to check raters by.", rich_help_panel=WHAT),
    ] = None,
    gold_every: Annotated[
        int | None, typer.Option(min=0, help="About every so many pairs is a gold one. [10]", rich_help_panel=WHAT)
    ] = None,
    next_: Annotated[
        Literal["random", "uncertain"] | None,
        typer.Option("--next", help="Which pair comes next: uncertain needs --reward. [random]", rich_help_panel=WHAT),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="The reward model that --next uncertain asks.", rich_help_panel=WHAT),
    ] = None,
    pairs_per_prompt: Annotated[int, typer.Option(min=1, help="Pairs of each prompt.", rich_help_panel=WHAT)] = 1,
    rater: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Print a link of this rater's own; repeatable.", rich_help_panel=WHO),
    ] = None,
    raters_per_pair: Annotated[
        int | None, typer.Option(min=1, help="Votes that a pair needs, each of another rater. [1]", rich_help_panel=WHO)
    ] = None,
    lease: Annotated[
        float | None,
        typer.Option(min=10, help="Seconds a pair is kept for who looks at it. [600]", rich_help_panel=WHO),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of the answers.", rich_help_panel=HOW)] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="An answer's tokens at most.", rich_help_panel=HOW)] = 256,
    ahead: Annotated[
        int, typer.Option(min=1, help="Pairs written before anybody asks for them.", rich_help_panel=HOW)
    ] = 64,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of answers, orders and sides. [0]", rich_help_panel=HOW)
    ] = None,
    host: Annotated[
        str, typer.Option(help="Beyond 127.0.0.1 everybody needs a link with a token.", rich_help_panel=WHERE)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.", rich_help_panel=WHERE)] = 8100,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST", help="A proxy's name for the page, https://HOST for TLS; repeatable.", rich_help_panel=WHERE
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps or cuda.", rich_help_panel=WHERE)] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=WHERE)] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", rich_help_panel=WHERE)] = None,
) -> Job:
    """Serve the page. A store is made if there is none; the same command goes on with it."""
    return partial(
        commands.rank, store, prompts=prompts, models=model or [], pairs=pairs, gold=gold, gold_every=gold_every,
        policy=next_, reward=reward, pairs_per_prompt=pairs_per_prompt, raters=rater or [],
        raters_per_pair=raters_per_pair, lease=lease, temperature=temperature, max_new_tokens=max_new_tokens,
        ahead=ahead, seed=seed, host=host, port=port, names=name or [], device=device, dtype=dtype, threads=threads,
    )  # fmt: skip


@app.command("export")
def export(
    store: Store,
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
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> Job:
    """Write the votes as rows that every stage reads, each with where it came from.

    STORE.db@1200 is the store as it stood at its event 1200.
    """
    return partial(
        commands.rank_export, store, output, votes=votes, form=form, edits=edits, margin=margin, gold=gold,
        force=force,
    )  # fmt: skip


@app.command("import")
def import_(
    store: Store,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rankings that people made elsewhere.")],
    rater: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose they are, where the file does not say.")
    ] = None,
) -> Job:
    """Take other tools' rankings in: chosen/rejected rows, Chatbot Arena, Label Studio, or our own export."""
    return partial(commands.rank_import, store, file, rater=rater)


@app.command("results")
def results(
    store: Store,
    html: Annotated[Path | None, typer.Option(help="Write the page as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> Job:
    """What the votes say: win rates, agreement, the raters' length bias, how many more votes a decision needs.

    STORE.db@1200 is the store as it stood at its event 1200.
    """
    return partial(commands.rank_results, store, html=html, as_json=as_json)
