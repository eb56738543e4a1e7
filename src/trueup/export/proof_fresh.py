"""Load an exported folder like any other tool, and compare its outputs with those of the trained network.

`trueup export` runs this file as a separate program, `python -P proof_fresh.py request.json`: a fresh process with
torch, transformers, peft and safetensors, and without trueup (checked at the end). `-P` keeps this file's folder off
the path; `-I` would also hide packages from PYTHONPATH or the user's site folder.

request.json: {folder, record, answer, source, trust_remote_code}. `record` is the file of `record_outputs`, `source`
the model before its weights were cast to another dtype, or null. The result, a list of `Check`s, goes to `answer`.
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
"""Largest allowed difference, as a share of the largest recorded logit or score, by dtype (docs/export.md)."""
CHANGE_CHECK = "change by training"
_FORCED = 3  # tokens before the end token in the check of `generate`


@dataclass(slots=True)
class Check:
    """Result of one check of an exported folder: name, if it passed, what was found, the limit, and numbers by name."""

    name: str
    passed: bool
    found: str
    limit: str = "exact"
    numbers: dict[str, float] = field(default_factory=dict)


class RecordedOutputs:
    """Recorded outputs of the trained network, read from the file of `proof.record_outputs`.

    They are tensors by name (`tensors`), token rows (`rows`) and JSON metadata (`about`).
    """

    def __init__(self, path: str) -> None:
        with safe_open(path, "pt") as file:
            self.about: dict[str, Any] = json.loads((file.metadata() or {})["trueup"])
        self.tensors = load_file(path)
        self.rows: list[list[int]] = [row.tolist() for row in self.tensors["ids"].split(self.about["lengths"])]

    @property
    def reward(self) -> bool:
        """True if the recorded outputs are a reward model's scores, not a policy's logits."""
        return self.about["kind"] == "reward"

    @property
    def device(self) -> str:
        """Device to compute on: CUDA if the training used CUDA and this machine has it, else the CPU."""
        return "cuda" if self.about["device"] == "cuda" and torch.cuda.is_available() else "cpu"


@torch.no_grad()
def policy_outputs(model: Any, rows: Sequence[Sequence[int]], device: Any) -> dict[str, Tensor]:
    """Return a causal language model's outputs for R rows of token ids, each run alone, in float32 on the CPU.

    Returns:
        logits: (R, V) after each row's last token.
        logps: (N,) log-probability of every token but each row's first, in nats.
        top: (M,) the likeliest next token at every position.
        lead: (M,) how far that token's logit is above the second largest.
    """
    outputs: dict[str, list[Tensor]] = {"logits": [], "logps": [], "top": [], "lead": []}
    for row in rows:
        ids = torch.tensor([row], device=device)
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
        first, second = logits.topk(2, dim=-1).values.unbind(-1)
        outputs["logits"].append(logits[-1:].cpu())
        outputs["logps"].append(logits[:-1].log_softmax(-1).gather(-1, ids[0, 1:, None]).squeeze(-1).cpu())
        outputs["top"].append(logits.argmax(-1).cpu())
        outputs["lead"].append((first - second).cpu())
    return {name: torch.cat(parts).contiguous() for name, parts in outputs.items()}


@torch.no_grad()
def score_outputs(model: Any, rows: Sequence[Sequence[int]], device: Any) -> Tensor:
    """Return the (R,) scores of a one-label sequence classifier for R rows of token ids, each run alone."""
    return torch.stack([model(input_ids=torch.tensor([row], device=device)).logits[0, 0].float().cpu() for row in rows])


@torch.no_grad()
def batch_scores(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], device: Any) -> Tensor:
    """Return the (R,) scores of R rows of token ids run as one batch, padded on the right by the exported tokenizer."""
    tokenizer.padding_side = "right"
    batch = tokenizer.pad({"input_ids": [list(row) for row in rows]}, padding=True, return_tensors="pt").to(device)
    return model(**batch).logits[:, 0].float().cpu()


def load(folder: Path, record: RecordedOutputs, trust: bool) -> tuple[Any, list[Check]]:
    """Load the model or adapter in `folder` with transformers and peft, as other tools do.

    Returns:
        The model, and a check that no weight was missing or left over.
    """
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
    """Load an adapter over its base model, in the dtype of the training, then cast it to the dtype of the recording.

    Args:
        folder: the PEFT folder.
        record: the recorded outputs.
        auto: transformers' Auto class for the base model.
        options: keyword arguments of `from_pretrained`.

    Returns:
        The model, and the check of the loading.
    """
    from peft import PeftModel

    base = base_of(folder)
    options |= {"dtype": getattr(torch, record.about["loaded"])} | ({"num_labels": 1} if record.reward else {})
    source, gguf = (str(Path(base).parent), {"gguf_file": Path(base).name}) if base.endswith(".gguf") else (base, {})
    trunk = auto.from_pretrained(source, **options, **gguf).to(getattr(torch, record.about["dtype"]))
    found = f"{type(trunk).__name__} of {base}, as {record.about['loaded']}"
    if gguf:
        # transformers has dequantised the weights, but the config still says that they are quantised.
        vars(trunk.config).pop("quantization_config", None)
    pad = tokenizer_of(folder).pad_token_id if record.reward else None
    base_pad = getattr(trunk.config.get_text_config(), "pad_token_id", None)
    if record.reward and pad != base_pad:
        trunk.config.pad_token_id = trunk.config.get_text_config().pad_token_id = pad
        found += f"; needs config.pad_token_id = {pad} (the base has {base_pad})"
    model = PeftModel.from_pretrained(trunk, str(folder))
    report = model.load_adapter(str(folder), "default")  # PEFT reports only to the caller of this method
    wrong = {"missing": report.missing_keys, "unexpected": report.unexpected_keys}
    wrong = {name: sorted(keys) for name, keys in wrong.items() if keys}
    found = f"{wrong}"[:200] if wrong else found
    return model.to(record.device).eval(), [Check("loading", not wrong, found, "peft over its base")]


def is_adapter(folder: Path) -> bool:
    """Return True if the folder holds a PEFT adapter, not a model."""
    return (folder / "adapter_config.json").is_file()


def base_of(folder: Path) -> str:
    """Return the folder or hub id of the base model that an adapter's folder names."""
    return json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]


def tokenizer_of(folder: Path, trust: bool = False) -> Any:
    """Load the tokenizer in a folder; `trust` allows it to run code that comes with it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)


def check_template(folder: Path, record: RecordedOutputs, trust: bool) -> Check:
    """Check that the exported tokenizer renders the recorded conversations to the text and ids used in training."""
    tokenizer, texts = tokenizer_of(folder, trust), record.about["texts"]
    recorded_at = datetime.fromisoformat(record.about["time"])
    same_ids = 0
    for number, text in enumerate(texts, 1):
        with _frozen_clock(recorded_at):
            rendered = tokenizer.apply_chat_template(
                text["messages"], tools=text.get("tools"), tokenize=False, add_generation_prompt=text["prompt"]
            )
        if rendered != text["text"]:
            difference = _difference(str(rendered), text["text"])
            return Check("chat template", False, f"text {number} differs: {difference}")
        ids = list(tokenizer(rendered, add_special_tokens=False)["input_ids"])
        if ids != text["ids"]:
            difference = _difference(ids, text["ids"])
            return Check("chat template", False, f"text {number} has other token ids: {difference}")
        same_ids += text["trained"] == ids
    prompts = sum(text["prompt"] for text in texts)
    found = f"{len(texts)} texts and their ids; {same_ids} of {prompts} prompts as trained"
    return Check("chat template", True, found, numbers={"texts": len(texts), "prompts": prompts, "same_ids": same_ids})


def _frozen_clock(time: datetime) -> Any:
    """Return a context in which chat templates that write today's date write the date of the recording."""
    clock = type("FrozenClock", (datetime,), {"now": classmethod(lambda cls, tz=None: time)})  # noqa: ARG005 - now's signature
    return mock.patch("transformers.utils.chat_template_utils.datetime", clock, create=True)


def _difference(now: Sequence[Any], then: Sequence[Any]) -> str:
    pairs = enumerate(zip(now, then, strict=False))
    index = next((index for index, (a, b) in pairs if a != b), min(len(now), len(then)))
    return f"at {index}, {now[index : index + 24]!r} instead of {then[index : index + 24]!r}"


def check_stops(model: Any, folder: Path, record: RecordedOutputs) -> Check:
    """Check that other tools will stop: generation_config.json names stop and pad tokens, and `generate` obeys them.

    A short text is generated in which the end token is forced.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    if not (folder / "generation_config.json").is_file():
        return Check("generation", False, "no generation_config.json, so other tools do not know the stop tokens")
    config = GenerationConfig.from_pretrained(folder)
    end, stops, eos = record.about["end_id"], sorted(record.about["stop_ids"]), config.eos_token_id
    if missing := set(stops) - set(eos if isinstance(eos, list) else [eos]):
        return Check("generation", False, f"eos_token_id is {eos}, without {sorted(missing)}", f"{stops}")
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
    new_tokens = model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=config,
        logits_processor=processors, do_sample=False, max_new_tokens=4 * _FORCED,
    )[0, length:].tolist()  # fmt: skip
    stopped = len(new_tokens) == _FORCED + 1 and new_tokens[-1] == end
    found = f"stops at {stops}" if stopped else f"went on after the end token {end}: {new_tokens}"
    return Check("generation", stopped, found, "at once", {"new_tokens": len(new_tokens)})


def compare(name: str, found: Tensor, record: RecordedOutputs, key: str, part: float) -> Check:
    """Check that outputs are as recorded, up to the share `part` of the largest recorded logit or score.

    Args:
        name: name of the check.
        found: the exported model's outputs.
        record: the recorded outputs.
        key: name of the recorded tensor, such as "logits".
        part: the allowed share.
    """
    recorded = record.tensors[key]
    scale = max(float(record.tensors["scores" if record.reward else "logits"].abs().max()), 0.1)
    worst, limit = float((found - recorded).abs().max()), part * scale
    summary = f"{found.numel()} values, differ by at most {worst:.2g}"
    return Check(name, worst <= limit, summary, f"{limit:.2g}", {"max_abs": worst, "tolerance": limit, "scale": scale})


def check_likeliest(found: dict[str, Tensor], record: RecordedOutputs, limit: float) -> Check:
    """Check that the likeliest token is the same at every position.

    A difference counts only where the two largest logits were more than 2 * `limit` apart.
    """
    same = found["top"] == record.tensors["top"]
    wrong = int((~same & (record.tensors["lead"] > 2 * limit)).sum())
    summary = f"the same at {int(same.sum())} of {same.numel()} positions"
    return Check(
        "likeliest token", wrong == 0, summary, "same, but ties", {"same": int(same.sum()), "of": same.numel()}
    )


def check_change(found: Tensor, record: RecordedOutputs, key: str, part: float) -> list[Check]:
    """Check how much of the change by training the export holds: 1 is all of it, 0 is the unchanged base.

    Rounding is mostly orthogonal to the change. A missing or halved merge is parallel to it, so this check finds it
    even below the tolerance of `compare`. Without recorded outputs of the base the list is empty.
    """
    base = record.tensors.get(f"base_{key}")
    if base is None:
        return []
    trained, exported = record.tensors[key] - base, found - base
    if key == "logits":  # a constant added to a row's logits changes nothing
        trained, exported = trained - trained.mean(-1, keepdim=True), exported - exported.mean(-1, keepdim=True)
    change, exported = trained.double().flatten(), exported.double().flatten()
    size, largest = float(change.norm()), float(change.abs().max())
    name, numbers = CHANGE_CHECK, {"max_change": largest}
    share = float(exported @ change) / size**2 if size else 0.0
    noise = float((exported - share * change).norm()) / size if size else 1.0
    if noise >= 1:
        return [Check(name, True, f"{key} changed by at most {largest:.2g}: too little to tell", "-", numbers)]
    summary = f"{share:.1%} of it is there" + (": this is the base, unchanged" if abs(share) < 0.01 else "")
    # Scores are too few to tell rounding, which shifts them all alike, from a change that was left out.
    judged = key == "logits" or part == TOLERANCE["float32"]
    within = 0.02 if part == TOLERANCE["float32"] else 0.1  # rounded weights do not hold all of a small change
    passed = not judged or abs(share - 1) <= max(within, noise / 2)
    limit = f"{1 - within:.0%} to {1 + within:.0%}, or noise" if judged else "-"
    return [Check(name, passed, summary, limit, numbers | {"share": share})]


def check_policy(model: Any, record: RecordedOutputs, part: float) -> list[Check]:
    """Check a policy's logits, change by training, log-probabilities and likeliest tokens on the recorded rows.

    `part` is the allowed difference as a share of the largest recorded logit.
    """
    found = policy_outputs(model, record.rows, record.device)
    logits = compare("logits", found["logits"], record, "logits", part)
    return [
        logits,
        *check_change(found["logits"], record, "logits", part),
        compare("log-probabilities", found["logps"], record, "logps", part),
        check_likeliest(found, record, logits.numbers["tolerance"]),
    ]


def check_reward(model: Any, folder: Path, record: RecordedOutputs, part: float) -> list[Check]:
    """Check a reward model's scores of the recorded rows, alone and as a padded batch, and their change by training.

    `part` is the allowed difference as a share of the largest recorded score.
    """
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
    """Load the model in `folder` and compare its outputs with the recorded ones, in its dtype and in the recording's.

    With `final`, for the folder to be published, also check a policy's stop tokens.
    """
    model, checks = load(folder, record, trust)
    own, recorded = str(model.dtype).removeprefix("torch."), record.about["dtype"]
    run = partial(check_reward, model, folder) if record.reward else partial(check_policy, model)
    if final and not record.reward:
        checks.append(check_stops(model, folder, record))
    if own != recorded:
        as_loaded = [check for check in run(record, TOLERANCE[own]) if check.name != CHANGE_CHECK]
        for check in as_loaded:
            check.name += f", in {own}"
        checks += as_loaded
        model.to(getattr(torch, recorded))
    part = max(TOLERANCE[own], TOLERANCE[recorded])
    checks += run(record, part)
    if is_adapter(folder) and not all(check.passed for check in checks):
        checks.insert(0, _find_cause(model, record, part))
    return checks


def _find_cause(model: Any, record: RecordedOutputs, part: float) -> Check:
    """Return a failed check that says if the base or the adapter is wrong, for an adapter whose outputs differ.

    The adapter is switched off, and the base's outputs are compared.
    """
    if record.reward:
        return Check("base", False, "either the adapter or the base is not the trained one")
    with model.disable_adapter():
        logits = policy_outputs(model, record.rows, record.device)["logits"]
    base = compare("base", logits, record, "base_logits", part)
    cause = "the base is unchanged: the adapter differs" if base.passed else "the base is not the one trained over"
    return Check("base", False, cause)


def run_checks(request: dict[str, Any]) -> list[Check]:
    """Run all checks that a request (the content of request.json) asks for. A check that raises an error has failed."""
    folder, trust = Path(request["folder"]), bool(request["trust_remote_code"])
    record = RecordedOutputs(request["record"])
    source = request["source"] and Path(request["source"])
    checks = _guarded("chat template", lambda: [check_template(folder, record, trust)])
    if source:  # before the cast a tighter tolerance applies; the cast itself must be exact
        uncast = _guarded("loading", lambda: check_outputs(source, record, trust, final=False))
        for check in uncast:
            check.name += ", uncast"
        checks += uncast
    return checks + _guarded("loading", lambda: check_outputs(folder, record, trust))


def _guarded(name: str, run: Callable[[], list[Check]]) -> list[Check]:
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - any error of a library on a bad folder is a failed check
        return [Check(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")]


def main(path: str) -> int:
    """Run the request's checks and write the results. Returns 0 if all passed, 1 if not."""
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    checks = run_checks(request)
    if "trueup" in sys.modules:
        checks.append(Check("independence", False, "trueup was imported"))
    Path(request["answer"]).write_text(json.dumps([asdict(check) for check in checks]), encoding="utf-8")
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
