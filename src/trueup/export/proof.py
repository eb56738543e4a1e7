"""Prove that an exported folder holds the model that was trained.

At the end of a stage `record_outputs` writes the outputs of the network in memory on a few rows of its data. `prove`
starts a fresh process (`proof_fresh.py`) that loads the exported folder with plain transformers and peft and compares.
The recording is independent of the export: LoRA is not merged, weights are not cast, no file is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trueup.config.paths import classifier_problem
from trueup.config.untrusted import Trust
from trueup.data.rendering.messages import Message
from trueup.errors import ModelError
from trueup.export import proof_fresh
from trueup.export.proof_files import check_files, check_rounding, check_weights, dtype_of
from trueup.export.proof_fresh import Check, RecordedOutputs, base_of, is_adapter, policy_outputs
from trueup.models.adapters import restored_config
from trueup.models.batching import Branch, Example, single
from trueup.models.forward import forward_all
from trueup.models.loading import load_causal_lm, load_classifier, load_tokenizer
from trueup.models.network import Network, Role
from trueup.runtime import Runtime
from trueup.system.console import table
from trueup.system.files import atomic_write_text
from trueup.system.text import clean

OUTPUTS_FILE = "outputs.safetensors"
PROOF_FILE = "proof.json"
LIVE_SOURCE = "the trained network, in memory"
_CANDIDATES, _ROWS, _TOKENS = 256, 8, 256  # two (rows, vocabulary) tensors of logits: 3 MB at 49k tokens
_CONVERSATIONS = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Add 2 and 3.", "5"),
    ("Name a colour, and say where one sees it.", "Green: grass is green, and so are leaves in summer."),
    ("Is ice cold?", "Yes."),
)


# -- recording -------------------------------------------------------------------------------------------------------


def record_outputs(
    network: Network, role: str, examples: Sequence[Example], path: Path,
    *, prompt: Callable[[int], Sequence[Message]] = lambda _: (), source: str = LIVE_SOURCE,
) -> None:  # fmt: skip
    """Write outputs of a trained role on a few data rows, and the rows' texts, for comparison with an export.

    The rows are up to 8 of the shortest examples (first branch). A policy's outputs are the logits after each row,
    every token's log-probability and the likeliest token at every position; a role with a head has scores. For a LoRA
    role they are also computed with the adapter off, to tell a merged model from its base. They are computed in float32
    from the weights in memory (with sharded weights, in the run's dtype). Every rank has to call; the first one writes.

    Args:
        network: network with the role; its weights and mode are not changed.
        role: the trained role.
        examples: data rows, at least one; only the first 256 are candidates.
        path: safetensors file to write. It contains text of the data, so it stays in the run folder.
        prompt: returns the messages before an example's answer, to check the chat template; none for plain text.
        source: description of the model that computed the outputs.
    """
    candidates = [examples[index] for index in range(min(len(examples), _CANDIDATES))]
    chosen = _shortest([_length(example) for example in candidates])
    rows = [_row(candidates[index]) for index in chosen]
    # If each process holds the whole model, the first one computes alone.
    shared, alone = network.runtime, replace(network.runtime, world=1, strategy="one")
    if not (shared.is_main or shared.sharded):
        return
    network.runtime = shared if shared.sharded else alone
    try:
        computed, dtype = _computed(network, role, rows)
    finally:
        network.runtime = shared
    if not shared.is_main:
        return
    conversations = [_turns(*_CONVERSATIONS[0]), *(messages for index in chosen if (messages := prompt(index)))]
    about = {
        "format": 1,
        "trueup": version("trueup"),
        "source": source,
        "kind": "policy" if network.roles[role].head is None else "reward",
        "dtype": str(dtype).removeprefix("torch."),
        "loaded": str(network.runtime.dtype).removeprefix("torch."),
        "device": network.runtime.device.type,
        "base_fingerprint": network.base_fingerprint,
        "lengths": [len(row) for row in rows],
        "end_id": network.renderer.end_id,
        "stop_ids": sorted(network.stop_ids),
        "time": datetime.now().isoformat(),
        "texts": [text for messages in conversations for text in _texts(network, messages)],
    }
    tensors = {"ids": torch.tensor([token for row in rows for token in row]), **computed}
    temporary = path.with_name(f".{path.name}.partial")
    save_file(tensors, temporary, metadata={"trueup": json.dumps(about)})
    temporary.replace(path)


def _length(example: Example) -> int:
    return len(example.trunk) + (len(example.branches[0].ids) if example.branches else 0)


def _shortest(lengths: Sequence[int]) -> list[int]:
    """Return the indices of up to 8 of the shortest examples, given their lengths in tokens.

    The lengths differ if possible, so that a batch has padding.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    distinct = list({lengths[index]: index for index in reversed(order)}.values())[::-1]
    return [*distinct, *(index for index in order if index not in distinct)][:_ROWS]


def _row(example: Example) -> list[int]:
    """Return the token ids of an example's prompt and first answer, cut to 256 tokens.

    The last token is kept, because scores are read there.
    """
    ids = example.trunk + (example.branches[0].ids if example.branches else [])
    return ids if len(ids) <= _TOKENS else [*ids[: _TOKENS - 1], ids[-1]]


def _outputs(network: Network, role: str, rows: list[list[int]]) -> dict[str, Tensor]:
    training = network.training
    network.eval()
    try:
        if network.roles[role].head is None:
            trunk = network.trunk(role)

            def policy() -> dict[str, Tensor]:
                with torch.no_grad(), network.autocast(trunk):
                    return policy_outputs(trunk, rows, network.runtime.device)

            return network.run(role, policy)
        examples = [Example(row[:-1], (Branch(row[-1:], [False]),)) for row in rows]
        scores = [forward_all(network, [example], role, "scores", max_tokens=_TOKENS) for example in examples]
        return {"scores": torch.cat(scores)}
    finally:
        network.train(training)


@contextmanager
def _in_float32(network: Network) -> Iterator[None]:
    """Make the network compute in float32 inside the context: each module's weights are widened only while it runs.

    So the comparison is free of bfloat16 rounding, which is far larger than many errors in an export, and at most one
    module is in memory twice.
    """
    narrow: dict[nn.Parameter, Tensor] = {}
    runtime, network.runtime = network.runtime, replace(network.runtime, dtype=torch.float32)

    def widen(module: nn.Module, _: Any) -> None:
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point() and parameter.dtype != torch.float32 and parameter not in narrow:
                narrow[parameter] = parameter.data
                parameter.data = parameter.data.float()

    def restore(module: nn.Module, *_: Any) -> None:
        for parameter in module.parameters(recurse=False):
            if parameter in narrow:
                parameter.data = narrow.pop(parameter)

    weighted = [module for module in network.modules() if module._parameters]
    handles = [module.register_forward_pre_hook(widen) for module in weighted]
    handles += [module.register_forward_hook(restore) for module in weighted]
    try:
        yield
    finally:
        network.runtime = runtime
        for handle in handles:
            handle.remove()
        for parameter, data in narrow.items():
            parameter.data = data


def _computed(network: Network, role: str, rows: list[list[int]]) -> tuple[dict[str, Tensor], torch.dtype]:
    """Return a role's outputs on token rows by name, and the dtype they were computed in: float32 if possible.

    Names that begin with "base_" are outputs with the adapter off.
    """
    parts, check_stop = network.roles[role], network.check_stop
    network.check_stop = lambda: None  # training is over, so a stop request must not interrupt this
    roles = {"": role}
    if parts.adapter is not None:
        network.roles["adapter off"] = Role(parts.trunk, head=parts.head)
        roles["base_"] = "adapter off"
    try:
        # Sharded weights cannot be widened: each layer is whole only while it runs.
        with nullcontext() if network.runtime.sharded else _in_float32(network):
            outputs = {key: _outputs(network, name, rows) for key, name in roles.items()}
        dtype = network.runtime.dtype if network.runtime.sharded else torch.float32
    except (RuntimeError, TypeError, ValueError):
        if network.runtime.sharded:
            raise  # a rank that starts again would deadlock the others
        outputs = {key: _outputs(network, name, rows) for key, name in roles.items()}
        dtype = network.runtime.dtype
    finally:
        network.roles.pop("adapter off", None)
        network.check_stop = check_stop
    base = {f"base_{name}": value for name, value in outputs.get("base_", {}).items() if name in ("logits", "scores")}
    return outputs[""] | base, dtype


def _texts(network: Network, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return what the tokenizer makes of a conversation's prompt and, if it ends with an answer, of the whole.

    Each entry has "messages" and "tools" as the template gets them, "prompt" (True for the prompt), "text", token
    "ids", and "trained": the prompt's ids as in training, else None.
    """
    answered = messages[-1].role == "assistant"
    tokenizer, prompt = network.tokenizer, list(messages[:-1] if answered else messages)
    texts: list[dict[str, Any]] = []
    for part, is_prompt in ((prompt, True), (messages, False))[: 1 + answered]:
        turns, tools = network.renderer.for_template(part)
        text = str(tokenizer.apply_chat_template(turns, tools=tools, tokenize=False, add_generation_prompt=is_prompt))
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        trained = network.renderer.prompt(part) if is_prompt else None
        request = {"messages": turns, "tools": tools, "prompt": is_prompt}
        texts.append({**request, "text": text, "ids": ids, "trained": trained})
    return texts


def _turns(question: str, answer: str) -> tuple[Message, ...]:
    return Message("user", question), Message("assistant", answer)


def record_folder(folder: Path, path: Path, *, trust_remote_code: bool = False) -> None:
    """Write the outputs of a model or adapter folder as trueup loads it, like `record_outputs`.

    It is for a folder whose run left no recorded outputs.

    Raises:
        ModelError: the folder, or an adapter's base, cannot be loaded.
    """
    cpu, trust = torch.device("cpu"), Trust(trust_remote_code, constant_weights=True)
    if is_adapter(folder):
        network, role = _load_adapter(folder, Runtime(cpu, torch.float32), trust)
    else:
        dtype = getattr(torch, dtype_of(folder), torch.float32)
        network, role = _load_model(str(folder), Runtime(cpu, dtype), trust)
    examples = [single(network.renderer.conversation(_turns(*turns))) for turns in _CONVERSATIONS]
    record_outputs(network, role, examples, path, source=f"{folder}, as trueup loads it")


def _load_model(folder: str, runtime: Runtime, trust: Trust) -> tuple[Network, str]:
    tokenizer = load_tokenizer(folder, trust_remote_code=trust.code)
    if classifier_problem(Path(folder)) is None:
        classifier = load_classifier(folder, runtime, trust=trust)
        network = Network(classifier, tokenizer, runtime)
        network.add_classifier("reward", classifier, trainable=False)
        return network, "reward"
    network = Network(load_causal_lm(folder, runtime, trust=trust), tokenizer, runtime)
    network.add_frozen("policy")
    return network, "policy"


def _load_adapter(folder: Path, runtime: Runtime, trust: Trust) -> tuple[Network, str]:
    base, settings = base_of(folder), json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    trunk = load_causal_lm(base, runtime, trust=trust)
    network = Network(trunk, load_tokenizer(base, trust_remote_code=trust.code), runtime)
    if settings["task_type"] == "SEQ_CLS":
        network.add_scorer("reward", folder, trainable=False)
        return network, "reward"
    network.add_trainable("policy", restored_config(settings))
    network._load_adapter_weights("policy", load_file(folder / "adapter_model.safetensors"))
    return network, "policy"


# -- proving ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proof:
    """Result of the proof of an exported folder: checks, package versions, recorded outputs and seconds taken."""

    checks: tuple[Check, ...]
    versions: dict[str, str]
    record: RecordedOutputs
    seconds: float

    @property
    def failures(self) -> list[Check]:
        """Checks that did not pass."""
        return [check for check in self.checks if not check.passed]

    def write(self, folder: Path) -> None:
        """Write `proof.json` into the folder, without the text of the rows, which may be private, and without paths."""
        about = self.record.about
        content = {
            "passed": not self.failures,
            "compared_with": about["source"],
            "computed": {
                "dtype": about["dtype"],
                "loaded": about["loaded"],
                "device": about["device"],
                "time": about["time"],
            },
            "rows": [{"tokens": len(row), "sha256": _sha256(row)} for row in self.record.rows],
            "checks": [asdict(check) for check in self.checks],
            "versions": self.versions | {"trueup": version("trueup")},
            "seconds": round(self.seconds, 1),
        }
        atomic_write_text(folder / PROOF_FILE, json.dumps(content, indent=2) + "\n")

    def show(self) -> None:
        """Print the checks as a table, and which model's outputs the folder was compared with."""
        versions = ", ".join(f"{name} {self.versions[name]}" for name in ("torch", "transformers", "peft"))
        verdict = "FAILED" if self.failures else "proven"
        rows = [("" if check.passed else "FAILED", check.name, check.found, check.limit) for check in self.checks]
        table(f"{verdict}, in a fresh process with {versions}", ["", "check", "found", "limit"], rows)
        source, lengths = self.record.about["source"], self.record.about["lengths"]
        print(
            f"compared with {clean(str(source), one_line=True)}, on {len(lengths)} rows of up to {max(lengths)} tokens"
        )
        if source != LIVE_SOURCE:
            print(f"(the run left no {OUTPUTS_FILE}, so the outputs of the trained network in memory are unknown)")


def prove(folder: Path, record: Path, *, source: Path | None = None, trust_remote_code: bool = False) -> Proof:
    """Prove that an exported folder computes the recorded outputs, in a fresh process without trueup.

    Args:
        folder: a model's or an adapter's folder.
        record: file written by `record_outputs`.
        source: the model's folder before its weights were cast, or None if they were not.
        trust_remote_code: run code that comes with the model, as in training.

    Returns:
        The checks, passed or failed: a difference does not raise.

    Raises:
        ModelError: the fresh process crashed.
    """
    started = time.monotonic()
    checks = [check_files(folder), check_weights(folder)]
    if source is not None:
        checks.append(check_rounding(folder, source))
    with tempfile.TemporaryDirectory() as temporary:
        request, answer = Path(temporary, "request.json"), Path(temporary, "answer.json")
        content = {
            "folder": str(folder), "record": str(record), "answer": str(answer),
            "source": None if source is None else str(source), "trust_remote_code": trust_remote_code,
        }  # fmt: skip
        request.write_text(json.dumps(content), encoding="utf-8")
        command = [sys.executable, "-P", proof_fresh.__file__, str(request)]
        done = subprocess.run(command, env=_environment(folder), capture_output=True, text=True, check=False)
        if not answer.is_file():
            reason = (done.stderr.strip().splitlines() or ["it wrote no error message"])[-1][:300]
            raise ModelError(f"the process that loads the export ended with code {done.returncode}: {reason}")
        checks += [Check(**check) for check in json.loads(answer.read_text(encoding="utf-8"))]
    versions = {name: version(name) for name in ("torch", "transformers", "peft", "safetensors")}
    return Proof(tuple(checks), versions, RecordedOutputs(str(record)), time.monotonic() - started)


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment variables of the fresh process: quiet, and offline unless the folder is an adapter.

    An adapter's base model may have to be read from the hub.
    """
    offline = {} if is_adapter(folder) else {"HF_HUB_OFFLINE": "1"}
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return {"TRANSFORMERS_VERBOSITY": "error", **threads, **os.environ, **offline}


def _sha256(row: list[int]) -> str:
    return hashlib.sha256(json.dumps(row).encode()).hexdigest()
