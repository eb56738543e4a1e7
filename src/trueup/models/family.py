"""Properties of a model's family that its configuration tells: known before a row is read or a weight loaded.

Whatever would only fail after training (a reward model that no class can hold, adapters that PEFT has not) is refused
here.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trueup.config import PpoConfig, StageConfig
from trueup.config.paths import adapter_base, is_adapter, trust_of
from trueup.config.untrusted import Trust, read_json, refusal
from trueup.errors import ModelError
from trueup.models.adapters import check_adapters
from trueup.models.blank import config_message, require_buildable
from trueup.models.loading import inspected_folder, load_error_message
from trueup.models.settings import DECODERS, encoder_message, sees_both_ways
from trueup.models.weights import score_head

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def check_family(config: StageConfig) -> None:
    """Check that the stage's method, and its LoRA section, are possible for the family of its model.

    Raises:
        ModelError: transformers cannot make the model of its config.json, it is an encoder, an encoder-decoder or no
            language model, its family has no sequence classifier for a reward model, or PEFT cannot make the adapters
            that the stage asks for.
    """
    from transformers import AutoModelForCausalLM

    family = _family(config.model, trust_of(config))
    if family is None:
        return
    kind = family.model_type
    if type(family) not in cast("Any", AutoModelForCausalLM)._model_mapping and not getattr(family, "auto_map", None):
        raise ModelError(
            f"model: {config.model}: transformers has no causal language model of {kind} models\n  fix: {DECODERS}"
        )
    if family.is_encoder_decoder:
        raise ModelError(
            f"model: {config.model} is an encoder-decoder ({kind}); trueup trains decoder-only language models\n"
            f"  fix: {DECODERS}"
        )
    trunk = _trunk(config.model, family, trust_of(config))
    if trunk is not None and sees_both_ways(trunk):
        raise ModelError(f"model: {encoder_message(config.model, kind)}")
    if config.method == "reward":
        _check_classifier(config.model, family, trunk)
    if config.lora is not None and trunk is not None:
        parameters = check_adapters(trunk, config.lora)
        if isinstance(config, PpoConfig):
            _check_rewards(config, parameters)


def _trunk(model: str, family: PreTrainedConfig, trust: Trust) -> PreTrainedModel | None:
    """Return the family's language model without weights; None if its class is the model's own code.

    Raises:
        ModelError: transformers cannot make it of the configuration.
    """
    from transformers import AutoModelForCausalLM

    if trust.code and getattr(family, "auto_map", None):
        return None
    if type(family) not in cast("Any", AutoModelForCausalLM)._model_mapping:
        return None
    try:
        return require_buildable(AutoModelForCausalLM, family, model)
    except ModelError as error:
        raise ModelError(f"model: {error}") from error


def _family(model: str, trust: Trust) -> PreTrainedConfig | None:
    """Return the configuration of a model or of an adapter's base; None for a .gguf file or one that is not trusted.

    Raises:
        ModelError: transformers cannot read it, for example because it does not know the model's type.
    """
    from transformers import AutoConfig

    if is_adapter(Path(model)):
        model = adapter_base(Path(model))
    folder = inspected_folder(model)
    if folder is None or refusal(folder, trust, weights=False):
        return None
    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=trust.code)
    except Exception as error:  # a library may raise anything on a file that is no model's
        if "trust_remote_code" in str(error):
            raise ModelError(load_error_message(model, error, "configuration")) from error
        raise ModelError(f"model: {config_message(model, error, read_json(folder / 'config.json'))}") from error


def _check_classifier(model: str, family: PreTrainedConfig, trunk: PreTrainedModel | None) -> None:
    """Check that a reward model of the family can be exported: as a sequence classifier over the same weights.

    Raises:
        ModelError: transformers has no such class, or it has other weights or no linear score head.
    """
    from transformers import AutoModelForSequenceClassification

    problem = f"reward: transformers has no sequence classifier of {family.model_type} models"
    fix = "train the reward model from another family; PPO and evaluations take rewards of any family"
    if type(family) not in cast("Any", AutoModelForSequenceClassification)._model_mapping:
        raise ModelError(f"{problem}, so no tool could load one trained from {model}\n  fix: {fix}")
    if trunk is None:
        return
    labelled = copy.deepcopy(family)
    labelled.num_labels = 1
    classifier = require_buildable(AutoModelForSequenceClassification, labelled, model)
    head = score_head(classifier)
    names = {name for name, module in classifier.named_modules() if module is head}
    missing = set(classifier.state_dict()) - set(trunk.state_dict()) - {f"{name}.weight" for name in names}
    if missing:
        raise ModelError(f"{problem} over the weights of {model} (it also needs {sorted(missing)[0]})\n  fix: {fix}")


def _check_rewards(config: PpoConfig, parameters: list[str]) -> None:
    """Check that adapters over one backbone adapt the same expert matrices, as PEFT demands.

    Raises:
        ModelError: a reward adapter adapts others than the policy would.
    """
    for reward in config.rewards:
        path = Path(reward) / "adapter" / "adapter_config.json"
        if not path.is_file():
            continue
        theirs = set(json.loads(path.read_text(encoding="utf-8")).get("target_parameters") or ())
        if theirs and parameters and theirs != set(parameters):
            raise ModelError(
                f"reward: the adapter in {reward} adapts other expert matrices ({', '.join(sorted(theirs)[:2])}, …) "
                "than lora.targets would, and over one base all must adapt the same\n"
                "  fix: give lora the targets that the reward was trained with"
            )
