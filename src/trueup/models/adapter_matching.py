"""Compare an adapter's file with the adapter that its settings make over a base, so that no weight of it is ignored."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from trueup.config.problems import nearest
from trueup.config.untrusted import read_json
from trueup.errors import ModelError
from trueup.models.renaming import renaming_of
from trueup.models.stored import ADAPTER, named, read_header
from trueup.system.text import excerpt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FACTOR = re.compile(r"(?:alpha|scaling)$")
"""Settings that multiply an adapter: a value that is missing or wrong changes what it computes, not its shapes."""
_SHAPES = re.compile(r"- (\S+): found shape torch\.Size\((\[.*?\])\) in the checkpoint and torch\.Size\((\[.*?\])\)")


class AdapterReport(NamedTuple):
    """The differences between an adapter's file and the adapter that its settings make over a base, as PEFT reports."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, str, str], ...] = ()
    """(name, shape in the file, shape over this base)."""
    expected: tuple[str, ...] = ()
    vocabulary: int | None = None
    """Number of tokens of the base."""


def adapter_report(folder: Path, base: PreTrainedModel) -> AdapterReport | None:
    """Compare the header of an adapter's file with the adapter that its settings make over `base`, as PEFT reports.

    `base` needs shapes only (`meta_base`), and gets the adapter. Return None where PEFT cannot make it without numbers.

    Raises:
        ModelError: the file is missing or damaged, its settings are not PEFT's, or the base has none of the adapter's
            target modules.
    """
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    check_adapter_settings(folder)
    path = folder / ADAPTER
    if not path.is_file():
        if (folder / "adapter_model.bin").is_file():
            return None
        raise ModelError(_no_adapter_weights(folder))
    stored = read_header(path)
    weights = {name: torch.empty(weight.shape, device="meta") for name, weight in stored.items()}

    def load() -> tuple[Any, Any]:
        settings = PeftConfig.from_pretrained(str(folder))
        adapted = get_peft_model(base, settings, adapter_name="default", low_cpu_mem_usage=True)
        return adapted, set_peft_model_state_dict(
            adapted, weights, "default", ignore_mismatched_sizes=True, low_cpu_mem_usage=True
        )

    with warnings.catch_warnings(record=True) as caught, torch.random.fork_rng(devices=[]):
        warnings.simplefilter("always")
        try:
            pair = load()
        except ValueError as error:
            if "not found in the base model" not in str(error):
                return None
            raise ModelError(
                f"{folder}: this adapter does not fit a {type(base).__name__}, which has none of its target modules\n"
                "  fix: name the base that it was trained over in adapter_config.json"
            ) from error
        except Exception:  # noqa: BLE001 -- as in `if_possible`: the loader, which meets the same, reports it
            return None
    adapted, result = pair
    shapes = [match.groups() for warning in caught for match in _SHAPES.finditer(str(warning.message))]
    expected = [name for name, _ in adapted.named_parameters() if _is_adapters(name)]
    mismatched = tuple((name, ours, theirs) for name, ours, theirs in shapes)
    missing = sorted(set(filter(_is_adapters, result.missing_keys)) - {name for name, _, _ in mismatched})
    vocabulary = getattr(base.config.get_text_config(), "vocab_size", None)
    # PEFT also calls a weight unexpected whose name it has completed before it compared the shapes.
    known = {name.replace(".default", "") for name, _, _ in mismatched}
    unexpected = sorted(set(result.unexpected_keys) - known)
    return AdapterReport(tuple(missing), tuple(unexpected), mismatched, tuple(expected), vocabulary)


def _no_adapter_weights(folder: Path) -> str:
    """Return the message for an adapter's folder without the file that PEFT reads."""
    parts = sorted(path.name for path in folder.glob(f"{ADAPTER.removesuffix('.safetensors')}-*.safetensors"))
    if not parts:
        return f"{folder}: has no {ADAPTER}, the adapter's weights\n  fix: copy the adapter again, whole"
    return (
        f"{folder}: its weights are in {len(parts)} parts ({named(parts)}), and PEFT reads only {ADAPTER}\n"
        '  fix: join them: python -c "from pathlib import Path; from safetensors.torch import load_file, save_file; '
        f"f = Path({str(folder)!r}); w = {{}}; "
        "[w.update(load_file(p)) for p in f.glob('adapter_model-*.safetensors')]; "
        f"save_file(w, f / '{ADAPTER}', {{'format': 'pt'}})\""
    )


def check_adapter_settings(folder: Path) -> None:
    """Check that PEFT reads every setting in an adapter's adapter_config.json, and takes no factor from its defaults.

    Raises:
        ModelError: PEFT does not know a key and would ignore it, or the adapter's factor is missing or no number.
    """
    import peft
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    path = folder / "adapter_config.json"
    settings = read_json(path)
    types: dict[Any, Any] = dict(PEFT_TYPE_TO_CONFIG_MAPPING)
    kind = types.get(settings.get("peft_type"))
    if kind is None:
        return
    known = {field.name: field.default for field in dataclasses.fields(kind)}
    for key, value in settings.items():
        if key not in known and value:  # a later version writes its new settings even where they change nothing
            close = nearest(key, [name for name in known if name not in settings])
            raise ModelError(
                f"{path}: {excerpt(key)[1:-1]} is no setting of {kind.__name__} in peft {peft.__version__}, which "
                f"would ignore it{f' (did you mean {close}?)' if close else ''}\n"
                "  fix: correct the key, or take it out; or install the version of peft that wrote it"
            )
    for key, default in known.items():
        if not _FACTOR.search(key) or isinstance(default, bool) or not isinstance(default, int | float):
            continue
        value = settings.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            state = f"is {excerpt(value)}, not a number above 0" if key in settings else f"is missing (PEFT: {default})"
            raise ModelError(
                f"{path}: {key} {state}; the strength of the adapter depends on it\n"
                "  fix: write the value that it was trained with"
            )


def _is_adapters(name: str) -> bool:
    """Return True if a parameter of PEFT's model belongs to the adapter called "default", not to the base."""
    return ".default" in name and ".base_layer." not in name


def adapter_problem(report: AdapterReport, folder: Path, base: str) -> tuple[str, str] | None:
    """Return the difference between an adapter and its base as (text, fix), or None if there is none.

    Args:
        report: PEFT's report.
        folder: the adapter's folder.
        base: the base's folder or hub id.
    """
    of_all = f" of {len(report.expected)}" if report.expected else ""
    missing, parts = [name.replace(".default", "") for name in report.missing], list[str]()
    if missing:
        parts.append(f"{len(missing)}{of_all} weights missing, which would be untrained ({named(missing)})")
    if report.unexpected:
        names = named(report.unexpected)
        parts.append(f"{len(report.unexpected)} for no layer of it, which would be ignored ({names})")
    if report.mismatched:
        names = [f"{name}: {ours} in the file, {theirs} over this base" for name, ours, theirs in report.mismatched]
        parts.append(f"{len(names)} of another shape ({named(names, '; ')})")
    if not parts:
        return None
    text = f"{folder}: this adapter does not fit {base}: {'; '.join(parts)}"
    expected = [name.replace(".default", "") for name in report.expected]
    if (renaming := renaming_of(report.unexpected, missing, expected)) is not None:
        path = str(folder / ADAPTER)
        return text, (
            f"{renaming.text}; rename them: "
            'python -c "import re; from safetensors.torch import load_file, save_file; '
            f"save_file({{{renaming.call('name')}: value.clone() "
            f"for name, value in load_file({path!r}).items()}}, {path!r}, {{'format': 'pt'}})\""
        )
    if (tokens := _trained_vocabulary(report)) is not None:
        return text, (
            f"the base has {report.vocabulary} tokens, the adapter was trained over {tokens}: resize the base as that "
            f'training did, save it, and name it in adapter_config.json: python -c "from transformers import '
            f"AutoModelForCausalLM; m = AutoModelForCausalLM.from_pretrained({base!r}, dtype='auto'); "
            f"m.resize_token_embeddings({tokens}); m.save_pretrained('{Path(base).name}-resized')\" (and its tokenizer)"
        )
    return text, "name the base that it was trained over in adapter_config.json, or copy the adapter again, whole"


def _trained_vocabulary(report: AdapterReport) -> int | None:
    """Return the vocabulary that an adapter was trained with, if that is the only difference from the base's."""
    tokens: set[int] = set()
    for _, ours, theirs in report.mismatched:
        pairs = list(zip(json.loads(ours), json.loads(theirs), strict=False))
        differing = [pair for pair in pairs if pair[0] != pair[1]]
        if len(differing) != 1 or differing[0][1] != report.vocabulary:
            return None
        tokens.add(differing[0][0])
    return tokens.pop() if len(tokens) == 1 else None


def require_adapter_match(report: AdapterReport | None, folder: Path, base: str) -> None:
    """Raise ModelError if an adapter's report has a difference; the arguments are those of `adapter_problem`.

    Raises:
        ModelError: a weight of the adapter is missing, fits no layer, or has another shape.
    """
    if report is not None and (problem := adapter_problem(report, folder, base)) is not None:
        raise ModelError("{}\n  fix: {}".format(*problem))
