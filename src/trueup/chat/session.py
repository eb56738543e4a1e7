"""The interactive session of `trueup chat`: talk to a model in the terminal, or to two side by side, and save data.

Each of two models continues from its own answers. `/a` or `/b` prefers an answer: from then on both continue from that
model's conversation, and the choice is a ranking. The same seed and conversation give the same answers.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from trueup import runtime
from trueup.chat.dialogue import SIDES, ChatAnswer, ChatRow, Dialogue, Exchange
from trueup.chat.saved import ChatFile
from trueup.chat.screen import InputReader, TypedEntry, answers, ctrl_c, say
from trueup.chat.speaker import (
    AnswerSampling,
    Speaker,
    parse_stop_text,
    parse_temperature,
    parse_whole_number,
    spoken_name,
)
from trueup.config.untrusted import NO_TRUST, Trust
from trueup.config.yamlfile import scalar
from trueup.data.rendering.messages import Message
from trueup.errors import ConfigError, TrueupError
from trueup.models.loading import compare_headers
from trueup.runtime import mixed_seed
from trueup.system.console import make_console, quiet_libraries
from trueup.system.text import clean, excerpt, short_count


def run(
    model: str,
    *,
    against: str | None = None,
    system: str | None = None,
    temperature: float = 0.7,
    max_new_tokens: int = 256,
    stop: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    chat_template: str | None = None,
    template: Sequence[str] = (),
    trust: Trust = NO_TRUST,
) -> None:
    r"""Chat: answer messages from stdin until its end or the command /quit.

    At a terminal an error is printed and the chat goes on; where the input is piped, it ends the chat.

    Args:
        model: a hub id, a model folder or a .gguf file.
        against: a second model, which answers the same messages.
        system: the system prompt.
        temperature: sampling temperature; 0 always takes the likeliest token.
        max_new_tokens: an answer's length in tokens at most.
        stop: texts that end an answer and are not part of it; `\n` and `\t` in them are a new line and a tab.
        seed: the seed of all answers.
        device: as in a stage's configuration.
        dtype: as in a stage's configuration.
        threads: as in a stage's configuration.
        chat_template: a chat template for the models instead of their own: a file, or a name of trueup's.
        template: variables for the chat template, each as "name=value".
        trust: the permissions for pickled and ignored weights.

    Raises:
        ConfigError: a setting is wrong.
        ModelError: a model cannot be loaded, writes no text, or takes no system prompt.
        KeyboardInterrupt: Ctrl-C twice at the prompt.
    """
    limit = parse_whole_number("max_new_tokens", max_new_tokens, 1)
    sampling = AnswerSampling(parse_temperature(temperature), limit, tuple(map(parse_stop_text, stop)))
    if against is not None and Path(against).resolve() == Path(model).resolve():
        raise ConfigError(
            f"against: {spoken_name(against)} is the model itself\n  fix: name another one, or leave it out"
        )
    variables = parse_variables(template)
    quiet_libraries()
    where = runtime.init(device, dtype, threads)
    if where.world > 1:
        raise ConfigError("chat: runs in one process; start it without torchrun")
    reader = InputReader()
    speakers: list[Speaker] = []
    for name in [model] if against is None else [model, against]:
        _announce(name, trust, loading=reader.interactive)
        speakers.append(Speaker(name, where, chat_template=chat_template, template=variables, trust=trust))
    session = Session(speakers, sampling, seed, reader)
    session.set_system(system or "")
    session.talk()


def _announce(model: str, trust: Trust, *, loading: bool) -> None:
    """Print what is allowed to be left out of a model and, with `loading`, that it loads.

    Raises:
        ModelError: its weights are not those of its class.
    """
    if ignored := compare_headers(model, trust):
        say(f"allowed: {ignored}")
    if loading:
        say(f"loading {spoken_name(model)}")


def parse_variables(settings: Sequence[str]) -> dict[str, object]:
    """Return the variables for a chat template that are given as "name=value", the values read as YAML.

    Raises:
        ConfigError: one is not of this form.
    """
    variables: dict[str, object] = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign or not name.isidentifier():
            raise ConfigError(f"template: {excerpt(setting)} is not name=value\n  fix: such as enable_thinking=false")
        variables[name] = scalar(value)
    return variables


class Session:
    """A running chat: the models, the conversation, the sampling settings, and the rows that were saved."""

    def __init__(self, speakers: Sequence[Speaker], sampling: AnswerSampling, seed: int, reader: InputReader) -> None:
        """Prepare a chat with one or two models; `talk` begins it."""
        self._speakers = speakers
        self._sampling = sampling
        self._seed = seed
        self._reader = reader
        self._console = make_console(stderr=False)
        self._names = [speaker.name for speaker in speakers]
        self._now = Dialogue(self._names)
        self._past: list[ChatRow] = []  # choices between answers that are no longer in the conversation
        self._kept: list[ChatRow] = []
        self._files = ChatFile()
        self._file: Path | None = None
        self._done = self._warned = False
        self._check: Callable[[], None] = lambda: None

    # -- the conversation ----------------------------------------------------------------------------------------

    def talk(self) -> None:
        """Read messages and commands and answer them, until the end of the input or /quit."""
        if self._reader.interactive:
            pair = "; /a or /b prefers an answer" if self.is_pair else ""
            say(f"talking to {' and '.join(self._labels()).replace('  ', ' ')}{pair}; /help lists the commands")
        while not self._done:
            try:
                entry = self._reader.read()
                if entry is None:
                    break
                with ctrl_c(self._reader.interactive) as self._check:
                    self._take(entry)
            except TrueupError as error:
                if not self._reader.interactive:
                    raise
                say(f"error: {error}")
        if unsaved := self._unsaved():
            say(f"{_count(unsaved, 'choice')} not saved")

    @property
    def is_pair(self) -> bool:
        """True if two models answer."""
        return len(self._speakers) > 1

    def _labels(self) -> list[str]:
        names = [clean(name, one_line=True) for name in self._names]
        return [f"{side}  {name}" for side, name in zip(SIDES, names, strict=True)] if self.is_pair else names

    def _choices(self) -> list[ChatRow]:
        return [*self._past, *self._now.rankings()]

    def _unsaved(self) -> int:
        return sum(row not in self._kept for row in self._choices())

    def _take(self, entry: TypedEntry) -> None:
        if not entry.command:
            self._reply(entry.text)
            return
        name, *rest = entry.text.split(maxsplit=1)
        command = COMMANDS.get(name)
        if command is None or (command.pair and not self.is_pair):
            raise ConfigError(self._unknown(name))
        if rest and not command.argument:
            raise ConfigError(f"{name}: takes no argument, but got {excerpt(rest[0])}; leave it out")
        command.run(self, "".join(rest))

    def _unknown(self, name: str) -> str:
        if name in COMMANDS:
            return f"{name}: there is only one model; start with --against MODEL for a second"
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "/help lists the commands."
        return (
            f"{excerpt(name)} is no command; {hint} Nothing was sent (a message that begins with / needs a space first)"
        )

    def _reply(self, text: str, attempt: int = 0) -> bool:
        """Let each model answer the message `text` and show the answers.

        Returns True if message and answers are now part of the conversation, False if Ctrl-C came before any text.
        """
        message = Message("user", text)
        prompts = [speaker.prompt([*self._now.history(side), message]) for side, speaker in enumerate(self._speakers)]
        seed = mixed_seed(self._seed, len(self._now.exchanges), attempt)
        replies: list[ChatAnswer] = []
        with answers(self._console, self._labels()) as show:
            for side, (speaker, prompt) in enumerate(zip(self._speakers, prompts, strict=True)):
                show(side, "")
                piece = partial(show, side)
                replies.append(speaker.answer(prompt, self._sampling, seed=seed, show=piece, check=self._check))
                if replies[-1].ended == "interrupted" and not self._reader.interactive:
                    raise KeyboardInterrupt
        self._comment(prompts, replies)
        if all(answer.ended == "interrupted" and not answer.text for answer in replies):
            kept = "the earlier answer is kept" if attempt else "the message is not kept"
            say(f"(interrupted before the answer began; {kept})")
            return False
        self._now.exchanges.append(Exchange(text, tuple(replies), attempt))
        return True

    def _comment(self, prompts: Sequence[list[int]], replies: Sequence[ChatAnswer]) -> None:
        """Print notes on the answers: if one was cut, interrupted or empty, and for two models their speed."""
        for side, speaker, prompt, answer in zip(SIDES, self._speakers, prompts, replies, strict=False):
            who = f"{side}: " if self.is_pair else ""
            if answer.ended == "interrupted" and answer.text:
                say(f"({who}interrupted; the part so far is kept: /again asks for another answer, /undo removes it)")
            elif answer.ended == "cut" and speaker.room(prompt, self._sampling) < self._sampling.max_new_tokens:
                say(f"({who}… cut at {answer.tokens} tokens: the model's context is full; /new begins again)")
            elif answer.ended == "cut":
                say(f"({who}… cut at {answer.tokens} tokens; /max raises it)")
            elif not answer.text.strip() and answer.whole:
                say(f"({who}the answer is empty)")
        if self.is_pair:
            say("   ".join(f"{side} {_pace(answer)}" for side, answer in zip(SIDES, replies, strict=True)))

    # -- commands ------------------------------------------------------------------------------------------------

    def show_help(self, _: str) -> None:
        """Carry out /help: list the commands."""
        for name, command in COMMANDS.items():
            if self.is_pair or not command.pair:
                print(f"{f'{name} {command.argument}':20}{command.help}")
        print('a line that ends in \\ goes on; lines between two lines of """ are one message')

    def set_system(self, text: str) -> None:
        """Carry out /system: set the system prompt. A changed one begins a new conversation."""
        text = text.strip()
        changed = Dialogue(self._names, text or None)
        for speaker in self._speakers if text else ():
            speaker.prompt([*changed.opening(), Message("user", "a")])  # a template may refuse a system prompt
        if changed.system != self._now.system:
            restart = "; a new conversation begins" if self._now.exchanges else ""
            self._begin(changed)
            self._tell(("the system prompt is set" if text else "no system prompt") + restart)

    def start_again(self, _: str) -> None:
        """Carry out /new: begin a new conversation under the same system prompt."""
        self._begin(Dialogue(self._names, self._now.system))
        self._tell("a new conversation")

    def _begin(self, dialogue: Dialogue) -> None:
        self._past += self._now.rankings()
        self._now = dialogue

    def _tell(self, text: str) -> None:
        """Print the confirmation of a command if a person is at the terminal; piped input gets none."""
        if self._reader.interactive:
            say(text)

    def set_temperature(self, text: str) -> None:
        """Carry out /temperature: set the sampling temperature, or without an argument show it."""
        if text:
            self._sampling = replace(self._sampling, temperature=parse_temperature(text))
        self._tell(f"temperature {self._sampling.temperature:g}")

    def set_max(self, text: str) -> None:
        """Carry out /max: set the largest length of an answer in tokens, or without an argument show it."""
        if text:
            self._sampling = replace(self._sampling, max_new_tokens=parse_whole_number("/max", text, 1))
        self._tell(f"at most {self._sampling.max_new_tokens} tokens an answer")

    def add_stop(self, text: str) -> None:
        """Carry out /stop: add a stop text, or without an argument remove all of them."""
        stops = dict.fromkeys([*self._sampling.stops, parse_stop_text(text)]) if text else ()
        self._sampling = replace(self._sampling, stops=tuple(stops))
        self._tell(f"an answer ends before {' or '.join(map(json.dumps, stops))}" if stops else "no stop texts")

    def set_seed(self, text: str) -> None:
        """Carry out /seed: set the seed of the answers, or without an argument show it."""
        if text:
            self._seed = parse_whole_number("/seed", text, 0)
        self._tell(f"seed {self._seed}")

    def undo(self, _: str) -> None:
        """Carry out /undo: remove the last message, its answers and the choice between them."""
        last = self._now.last()
        self._now.exchanges.pop()
        self._tell(f"taken back: {excerpt(last.message)}")

    def again(self, _: str) -> None:
        """Carry out /again: sample other answers to the last message.

        The old answers are replaced only once there are new ones; a choice between the old ones is kept as a ranking.
        """
        last = self._now.last()
        if self._sampling.temperature == 0:
            say("(temperature 0: the likeliest answer once more)")
        self._now.exchanges.pop()
        replaced = False
        try:
            replaced = self._reply(last.message, last.attempt + 1)
        finally:
            if not replaced:
                self._now.exchanges.append(last)
        self._past += [last.ranking] if replaced and last.ranking else []

    def show(self, _: str) -> None:
        """Carry out /show: print the conversation so far."""
        lines = self._now.lines(SIDES if self.is_pair else ("model",))
        if not lines:
            self._now.last()
        for speaker, text in lines:
            print(f"{speaker}: {clean(text)}")

    def choose(self, side: int) -> None:
        """Carry out /a or /b: prefer the last answer of model 0 or 1."""
        message, self._warned = self._now.choose(side), False
        if self._reader.interactive or not self._now.last().ranking:
            say(message)

    def save(self, text: str) -> None:
        """Carry out /save: write the conversation (one model) or the rankings (two models) to a JSONL file."""
        file = Path(text) if text else self._file
        if file is None:
            raise ConfigError("/save: to which file?\n  fix: /save FILE.jsonl")
        kind = "ranking" if self.is_pair else "conversation"
        rows = self._choices() if self.is_pair else [self._now.row()]
        if not rows:
            raise ConfigError("/save: no answer was preferred yet\n  fix: /a or /b prefers the last answer of a model")
        counts = self._files.save(file, rows, kind)
        self._file, self._kept = file, rows
        parts = [f"{_count(counts.added, kind)} added"] if counts.added else []
        parts += [f"{_count(counts.updated, kind)} updated"] if counts.updated else []
        say(f"{file}: {', '.join(parts) or 'nothing new'}; {_count(counts.total, 'row')} in it")
        if parts and not self.is_pair and (unfinished := self._now.unfinished()):
            say(f"note: {_count(unfinished, 'answer')} cut or interrupted: a model trained on it learns to stop there")

    def quit(self, _: str) -> None:
        """Carry out /quit. At a terminal, the first /quit with unsaved choices only warns."""
        self._done = self._warned or not self._reader.interactive or not self._unsaved()
        if not self._done:
            self._warned = True
            say(f"{_count(self._unsaved(), 'choice')} not saved: /save FILE.jsonl keeps them, another /quit does not")


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the chat: its argument, its help text and the function that carries it out.

    `pair` is True for commands that exist only where two models answer.
    """

    argument: str
    help: str
    run: Callable[[Session, str], None]
    pair: bool = False


COMMANDS: dict[str, Command] = {
    "/help": Command("", "this list", Session.show_help),
    "/new": Command("", "begin a new conversation", Session.start_again),
    "/again": Command("", "another answer to the last message", Session.again),
    "/undo": Command("", "take the last message and its answer back", Session.undo),
    "/a": Command("", "prefer A's answer; both go on with A's conversation", lambda s, _: s.choose(0), pair=True),
    "/b": Command("", "prefer B's answer; both go on with B's conversation", lambda s, _: s.choose(1), pair=True),
    "/show": Command("", "the conversation so far", Session.show),
    "/save": Command("FILE.jsonl", "add the conversation, or what was preferred, to a data file", Session.save),
    "/system": Command("TEXT", "set the system prompt (no TEXT: none) and begin again", Session.set_system),
    "/temperature": Command("X", "0: always the likeliest token", Session.set_temperature),
    "/max": Command("N", "an answer's length in tokens at most", Session.set_max),
    "/stop": Command("TEXT", r"end answers before TEXT (\n: a new line); no TEXT: nowhere", Session.add_stop),
    "/seed": Command("N", "other answers to the same messages", Session.set_seed),
    "/quit": Command("", "end", Session.quit),
}


def _count(number: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


def _pace(answer: ChatAnswer) -> str:
    return f"{_count(answer.tokens, 'token')}, {short_count(answer.tokens / max(answer.seconds, 1e-9))} tok/s"
