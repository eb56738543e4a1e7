"""Load an exported folder as anybody would, and compare what it computes with what the trained network computed.

`trueup export` runs this file as a program of its own, `python -P proof_fresh.py request.json`: a fresh process with
torch, transformers, peft and safetensors, and nothing of trueup in it (checked at the end). `-P` keeps this file's
folder off the path; `-I` would also hide packages that PYTHONPATH or a user's own site supply.

request.json: {folder, record, answer, source, trust_remote_code}. `record` is what `record_outputs` wrote, `source` the
model before its weights were rounded to another dtype, or null. The result, a list of `Check`s, goes to `answer`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}
"""The largest difference, in parts of the largest recorded logit or score, by dtype. As measured: docs/export.md."""
CHANGE_CHECK = "change by training"
_FORCED = 3  # tokens before the end token in the check of `generate`


@dataclass(slots=True)
class Check:
    """One thing looked at: what was found, what was allowed."""

    name: str
    passed: bool
    found: str
    limit: str = "exact"
    numbers: dict[str, float] = field(default_factory=dict)


class RecordedOutputs:
    """What the trained network computed, as `proof.record_outputs` wrote it: tensors, and JSON as metadata."""

    def __init__(self, path: str) -> None:
        with safe_open(path, "pt") as file:
            self.about: dict[str, Any] = json.loads((file.metadata() or {})["trueup"])
        self.tensors = load_file(path)
        self.rows: list[list[int]] = [row.tolist() for row in self.tensors["ids"].split(self.about["lengths"])]

    @property
    def reward(self) -> bool:
        """Whether scores were recorded, not logits."""
        return self.about["kind"] == "reward"

    @property
    def device(self) -> str:
        """Where to compute: as it was trained, if that can be had."""
        return "cuda" if self.about["device"] == "cuda" and torch.cuda.is_available() else "cpu"


@torch.no_grad()
def policy_outputs(model: Any, rows: Sequence[Sequence[int]], device: Any) -> dict[str, Tensor]:
    """What a causal language model computes for R rows of token ids, each run alone. All float32 on the CPU.

    Returns:
        logits: (R, V) after each row's last token.
        logps: (N,) log-probability of every token but each row's first, in nats.
        top: (M,) the likeliest next token at every position.
        lead: (M,) by how much its logit leads the second.
    """
    out: dict[str, list[Tensor]] = {"logits": [], "logps": [], "top": [], "lead": []}
    for row in rows:
        ids = torch.tensor([row], device=device)
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
        first, second = logits.topk(2, dim=-1).values.unbind(-1)
        out["logits"].append(logits[-1:].cpu())
        out["logps"].append(logits[:-1].log_softmax(-1).gather(-1, ids[0, 1:, None]).squeeze(-1).cpu())
        out["top"].append(logits.argmax(-1).cpu())
        out["lead"].append((first - second).cpu())
    return {name: torch.cat(parts).contiguous() for name, parts in out.items()}


@torch.no_grad()
def score_outputs(model: Any, rows: Sequence[Sequence[int]], device: Any) -> Tensor:
    """(R,) scores of a one-label sequence classifier, each row run alone."""
    return torch.stack([model(input_ids=torch.tensor([row], device=device)).logits[0, 0].float().cpu() for row in rows])


@torch.no_grad()
def batch_scores(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], device: Any) -> Tensor:
    """(R,) scores of all rows as one batch, padded on the right by the exported tokenizer."""
    tokenizer.padding_side = "right"
    batch = tokenizer.pad({"input_ids": [list(row) for row in rows]}, padding=True, return_tensors="pt").to(device)
    return model(**batch).logits[:, 0].float().cpu()


def load(folder: Path, record: RecordedOutputs, trust: bool) -> tuple[Any, list[Check]]:
    """The model in `folder`, adapter or whole, through transformers' Auto class and peft; and what loading said."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    auto = AutoModelForSequenceClassification if record.reward else AutoModelForCausalLM
    options: dict[str, Any] = {"trust_remote_code": trust, "use_safetensors": True}
    if is_adapter(folder):
        return load_adapter(folder, record, auto, options)
    model, info = cast("Any", auto).from_pretrained(folder, output_loading_info=True, **options)
    wrong = {name: sorted(map(str, keys)) for name, keys in info.items() if keys}
    found = f"{type(model).__name__}, no weight missing or left over" if not wrong else f"{wrong}"[:200]
    return model.to(record.device).eval(), [Check("loading", not wrong, found)]


def load_adapter(folder: Path, record: RecordedOutputs, auto: Any, options: dict[str, Any]) -> tuple[Any, list[Check]]:
    """The adapter over the base that it names: in the dtype it was trained over, then computing as was recorded."""
    from peft import PeftModel

    base = base_of(folder)
    options |= {"dtype": getattr(torch, record.about["loaded"])} | ({"num_labels": 1} if record.reward else {})
    source, file = (str(Path(base).parent), {"gguf_file": Path(base).name}) if base.endswith(".gguf") else (base, {})
    trunk = auto.from_pretrained(source, **options, **file).to(getattr(torch, record.about["dtype"]))
    found = f"{type(trunk).__name__} of {base}, as {record.about['loaded']}"
    if file:
        # What transformers dequantised is an ordinary model, but its config still says that it is quantised.
        vars(trunk.config).pop("quantization_config", None)
    pad, own = tokenizer_of(folder).pad_token_id, trunk.config.get_text_config().pad_token_id
    if record.reward and pad != own:
        trunk.config.pad_token_id = trunk.config.get_text_config().pad_token_id = pad
        found += f"; needs config.pad_token_id = {pad} (the base has {own})"
    model = PeftModel.from_pretrained(trunk, str(folder))
    return model.to(record.device).eval(), [Check("loading", True, found, "peft over its base")]


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a PEFT adapter, not a model."""
    return (folder / "adapter_config.json").is_file()


def base_of(folder: Path) -> str:
    """The base that an adapter names."""
    return json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]


def tokenizer_of(folder: Path, trust: bool = False) -> Any:
    """The folder's own tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)


def check_template(folder: Path, record: RecordedOutputs, trust: bool) -> Check:
    """The re-loaded tokenizer renders the recorded conversations to the very text and ids of training."""
    tokenizer, texts = tokenizer_of(folder, trust), record.about["texts"]
    then = datetime.fromisoformat(record.about["time"])
    same_ids = 0
    for at, one in enumerate(texts):
        with _clock(then):
            made = tokenizer.apply_chat_template(one["messages"], tokenize=False, add_generation_prompt=one["prompt"])
        if made != one["text"]:
            return Check("chat template", False, f"text {at + 1} differs: {_difference(str(made), one['text'])}")
        ids = list(tokenizer(made, add_special_tokens=False)["input_ids"])
        if ids != one["ids"]:
            return Check("chat template", False, f"text {at + 1} has other token ids: {_difference(ids, one['ids'])}")
        same_ids += one["trained"] == ids
    prompts = sum(one["prompt"] for one in texts)
    found = f"{len(texts)} texts and their ids; {same_ids} of {prompts} prompts as trained"
    return Check("chat template", True, found, numbers={"texts": len(texts), "prompts": prompts, "same_ids": same_ids})


def _clock(then: datetime) -> Any:
    """Templates that write today's date (`strftime_now`) write that of the recording."""
    clock = type("Then", (datetime,), {"now": classmethod(lambda cls, tz=None: then)})  # noqa: ARG005 - now's signature
    return mock.patch("transformers.utils.chat_template_utils.datetime", clock, create=True)


def _difference(now: Sequence[Any], then: Sequence[Any]) -> str:
    at = next((i for i, (a, b) in enumerate(zip(now, then, strict=False)) if a != b), min(len(now), len(then)))
    return f"at {at}, {now[at : at + 24]!r} instead of {then[at : at + 24]!r}"


def check_stops(model: Any, folder: Path, record: RecordedOutputs) -> Check:
    """generation_config.json names every stop and a pad token, and `generate` stops at an end token forced on it."""
    from transformers import GenerationConfig, LogitsProcessorList

    if not (folder / "generation_config.json").is_file():
        return Check("generation", False, "no generation_config.json: nothing tells other tools where to stop")
    config = GenerationConfig.from_pretrained(folder)
    end, stops, eos = record.about["end_id"], sorted(record.about["stop_ids"]), config.eos_token_id
    if lacking := set(stops) - set(eos if isinstance(eos, list) else [eos]):
        return Check("generation", False, f"eos_token_id is {eos}, without {sorted(lacking)}", f"{stops}")
    if config.pad_token_id is None:
        return Check("generation", False, "pad_token_id is missing", "a pad token")
    prompt = torch.tensor([record.rows[0][:64]], device=record.device)
    length = prompt.shape[1]

    def force(ids: Tensor, scores: Tensor) -> Tensor:
        ended = ids.shape[1] >= length + _FORCED
        scores = torch.full_like(scores, -torch.inf) if ended else scores.clone()
        scores[:, stops] = -torch.inf
        scores[:, end] = 0.0 if ended else -torch.inf
        return scores

    processors: Any = LogitsProcessorList([cast("Any", force)])
    made = model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=config,
        logits_processor=processors, do_sample=False, max_new_tokens=4 * _FORCED,
    )[0, length:].tolist()  # fmt: skip
    stopped = len(made) == _FORCED + 1 and made[-1] == end
    found = f"stops at {stops}" if stopped else f"went on after the end token {end}: {made}"
    return Check("generation", stopped, found, "at once", {"new_tokens": len(made)})


def compare(name: str, found: Tensor, record: RecordedOutputs, key: str, part: float) -> Check:
    """Largest difference against `part` of the largest recorded value."""
    wanted = record.tensors[key]
    scale = max(float(record.tensors["scores" if record.reward else "logits"].abs().max()), 0.1)
    worst, limit = float((found - wanted).abs().max()), part * scale
    shown = f"{found.numel()} values, differ by at most {worst:.2g}"
    return Check(name, worst <= limit, shown, f"{limit:.2g}", {"max_abs": worst, "tolerance": limit, "scale": scale})


def check_likeliest(found: dict[str, Tensor], record: RecordedOutputs, limit: float) -> Check:
    """The same token is the likeliest at every position, but where two were as close as the tolerance."""
    same = found["top"] == record.tensors["top"]
    wrong = int((~same & (record.tensors["lead"] > 2 * limit)).sum())
    shown = f"the same at {int(same.sum())} of {same.numel()} positions"
    return Check("likeliest token", wrong == 0, shown, "same, but ties", {"same": int(same.sum()), "of": same.numel()})


def check_change(found: Tensor, record: RecordedOutputs, key: str, part: float) -> list[Check]:
    """How much of what training changed is in the export: 1 all of it, 0 none, so that it computes what the base did.

    Rounding lies mostly across the change. A merge left out or halved lies along it: it shows below the tolerance too.
    """
    base = record.tensors.get(f"base_{key}")
    if base is None:
        return []
    wanted, got = record.tensors[key] - base, found - base
    if key == "logits":  # a constant added to a row's logits changes nothing
        wanted, got = wanted - wanted.mean(-1, keepdim=True), got - got.mean(-1, keepdim=True)
    change, got = wanted.double().flatten(), got.double().flatten()
    moved, largest = float(change.norm()), float(change.abs().max())
    name, numbers = CHANGE_CHECK, {"max_change": largest}
    share = float(got @ change) / moved**2 if moved else 0.0
    noise = float((got - share * change).norm()) / moved if moved else 1.0
    if noise >= 1:
        return [Check(name, True, f"{key} moved by at most {largest:.2g}: too little to tell", "-", numbers)]
    shown = f"{share:.1%} of it is there" + (": this is the base, unchanged" if abs(share) < 0.01 else "")
    # Scores are too few to tell rounding, which moves all of them alike, from a change that was left out.
    judged = key == "logits" or part == TOLERANCE["float32"]
    within = 0.02 if part == TOLERANCE["float32"] else 0.1  # rounded weights do not hold all of a small change
    passed = not judged or abs(share - 1) <= max(within, noise / 2)
    limit = f"{1 - within:.0%} to {1 + within:.0%}, or noise" if judged else "-"
    return [Check(name, passed, shown, limit, numbers | {"share": share})]


def check_policy(model: Any, record: RecordedOutputs, part: float) -> list[Check]:
    """Logits, log-probabilities and likeliest tokens of the recorded rows."""
    found = policy_outputs(model, record.rows, record.device)
    logits = compare("logits", found["logits"], record, "logits", part)
    return [
        logits,
        *check_change(found["logits"], record, "logits", part),
        compare("log-probabilities", found["logps"], record, "logps", part),
        check_likeliest(found, record, logits.numbers["tolerance"]),
    ]


def check_reward(model: Any, folder: Path, record: RecordedOutputs, part: float) -> list[Check]:
    """Scores of the recorded rows, alone and as one padded batch."""
    alone = score_outputs(model, record.rows, record.device)
    checks = [compare("scores, alone", alone, record, "scores", part)]
    tokenizer = tokenizer_of(folder)
    if tokenizer.pad_token_id is None:
        checks.append(Check("scores, batch", True, "not computed: there is no pad token to fill rows with", "-"))
    else:
        together = batch_scores(model, tokenizer, record.rows, record.device)
        checks.append(compare("scores, batch", together, record, "scores", part))
    return checks + check_change(alone, record, "scores", part)


def check_outputs(folder: Path, record: RecordedOutputs, trust: bool, *, final: bool = True) -> list[Check]:
    """Load the model and compare all that it computes: as it is loaded, and from the same weights as recorded.

    `final`: the folder to be published, so it must also stop where it should.
    """
    model, checks = load(folder, record, trust)
    own, wanted = str(model.dtype).removeprefix("torch."), record.about["dtype"]
    run = partial(check_reward, model, folder) if record.reward else partial(check_policy, model)
    if final and not record.reward:
        checks.append(check_stops(model, folder, record))
    if own != wanted:
        as_loaded = [check for check in run(record, TOLERANCE[own]) if check.name != CHANGE_CHECK]
        for check in as_loaded:
            check.name += f", in {own}"
        checks += as_loaded
        model.to(getattr(torch, wanted))
    part = max(TOLERANCE[own], TOLERANCE[wanted])
    checks += run(record, part)
    if is_adapter(folder) and not all(check.passed for check in checks):
        checks.insert(0, _whose_fault(model, record, part))
    return checks


def _whose_fault(model: Any, record: RecordedOutputs, part: float) -> Check:
    """An adapter's outputs differ: with it switched off, is the base the one it was trained over?"""
    if record.reward:
        return Check("base", False, "either the adapter or the base is not the trained one")
    with model.disable_adapter():
        logits = policy_outputs(model, record.rows, record.device)["logits"]
    base = compare("base", logits, record, "base_logits", part)
    whose = "the base is as it was: the adapter is another" if base.passed else "the base is not the one trained over"
    return Check("base", False, whose)


def run_checks(request: dict[str, Any]) -> list[Check]:
    """All checks of a request. A check that fails to run has failed."""
    folder, trust = Path(request["folder"]), bool(request["trust_remote_code"])
    record = RecordedOutputs(request["record"])
    source = request["source"] and Path(request["source"])
    checks = _guarded("chat template", lambda: [check_template(folder, record, trust)])
    if source:  # the weights before the cast are held to their own, tighter tolerance; the cast itself, to the bit
        before = _guarded("loading", lambda: check_outputs(source, record, trust, final=False))
        for check in before:
            check.name += ", uncast"
        checks += before
    return checks + _guarded("loading", lambda: check_outputs(folder, record, trust))


def _guarded(name: str, run: Callable[[], list[Check]]) -> list[Check]:
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - whatever a library raises on a bad folder is the finding
        return [Check(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")]


def main(path: str) -> int:
    """Prove what the request asks, write the answer. Returns 0 if all passed, 1 if not."""
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    checks = run_checks(request)
    if "trueup" in sys.modules:
        checks.append(Check("independence", False, "trueup was imported"))
    Path(request["answer"]).write_text(json.dumps([asdict(check) for check in checks]), encoding="utf-8")
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
