"""Talk to a model in the terminal: multi-turn, streaming, with what it says cleaned of control characters."""

from __future__ import annotations

from trueup import runtime
from trueup.chat import Message
from trueup.console import clean, quiet_libraries
from trueup.loading import load_causal_lm, load_tokenizer
from trueup.models import Network
from trueup.rollouts import answer_text
from trueup.sampling import sample


def run(model: str, *, system: str | None = None, temperature: float = 0.7, max_new_tokens: int = 256) -> None:
    """Read the user's lines and answer each until end of file, Ctrl-C or /quit; /new begins a new conversation."""
    quiet_libraries()
    where = runtime.init()
    network = Network(load_causal_lm(model, where), load_tokenizer(model), where)
    network.add_frozen("policy")
    start = [Message("system", system)] if system else []
    messages = list(start)
    print(f"talking to {model}; /new begins again, /quit ends")
    turn = 0
    while (line := _ask()) not in (None, "/quit"):
        if line == "/new":
            messages = list(start)
            continue
        if not line:
            continue
        messages.append(Message("user", line))
        answer = _answer(network, messages, temperature, max_new_tokens, seed=turn)
        messages.append(Message("assistant", answer))
        turn += 1


def _ask() -> str | None:
    """The user's next line; None at the end of the input."""
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return None


def _answer(network: Network, messages: list[Message], temperature: float, max_new_tokens: int, seed: int) -> str:
    """Sample an answer, printing the text as it grows."""
    ids: list[int] = []
    shown = ""

    def stream(token: int) -> None:
        nonlocal shown
        if token not in network.renderer.stop_ids:
            ids.append(token)
        text = network.renderer.decode(ids)
        if not text.endswith("\ufffd"):  # half of a character: wait for the rest
            print(clean(text[len(shown) :]), end="", flush=True)
            shown = text

    prompt = network.renderer.prompt(messages)
    [got] = sample(
        network, [prompt], max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, on_token=stream
    )
    print(f"{clean(answer_text(network, got)[len(shown) :])}")
    return answer_text(network, got)
