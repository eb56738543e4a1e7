"""One model, many roles: add LoRA adapters, frozen copies and scalar heads to it, and run a batch through a role.

A role is a job in training: "policy", "reference", "value" or "reward". A trunk is a transformer without its role's
parts. With LoRA the policy, the value and the reward model are adapters (and heads) over one frozen trunk, and the
reference is the same trunk with its adapters off, so PPO costs the memory of a single model. With full fine-tuning
each role has a separate trunk behind the same interface.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trueup.algorithms.tensors import LMHead, token_logps
from trueup.data.rendering.renderer import Renderer
from trueup.errors import ConfigError, ModelError
from trueup.models.adapters import adapter_config, refused_targets, restored_config
from trueup.models.attention import PACKED, use_attention
from trueup.models.batching import Batch, Branch, Example, Layout, collate
from trueup.models.positions import table_size
from trueup.models.targets import check_targets
from trueup.models.weights import (
    bit_sum,
    decoder,
    end_ids,
    head_weight,
    input_embeddings,
    logit_scale,
    logit_softcap,
    move_module,
    output_embeddings,
    score_head,
    weights_fingerprint,
)
from trueup.runtime import is_sharded, run_unsharded, shard
from trueup.system.text import listed

if TYPE_CHECKING:
    from peft import LoraConfig as PeftLora
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from trueup.config import LoraConfig
    from trueup.runtime import Runtime
    from trueup.runtime.sharding import ShardedTrunk

T = TypeVar("T")
SCORE_HEAD_KEY = "base_model.model.score.weight"  # where PEFT keeps the score head of a sequence-classification adapter


@dataclass(frozen=True, slots=True)
class Role:
    """Names of the parts that a role ("policy", "reference", "value", "reward") runs with.

    They are its trunk (the transformer), its LoRA adapter (None: the trunk's own weights) and its scalar head (None: it
    has none, and log-probabilities come from the LM head).
    """

    trunk: str
    adapter: str | None = None
    head: str | None = None


class Network(nn.Module):
    """One or more trunks (transformers) with adapters and scalar heads, and the roles that use them.

    Args:
        trunk: the base, a `transformers` causal language model, frozen here; added roles decide what trains.
        tokenizer: its tokenizer (with a pad token).
        runtime: device and compute dtype.
        renderer: the tokenizer's renderer, if there is one already.
        model_dropout: True trains with the dropout of the model's own configuration.
        longest: the longest row in tokens that it will run, where that is known; the layout is tried at this length.

    The attribute `stop_ids` has the ids at which an answer ends: those of template and tokenizer, and the model's own.
    """

    def __init__(
        self, trunk: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, runtime: Runtime,
        renderer: Renderer | None = None, *, model_dropout: bool = False, longest: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model_dropout, self.longest = model_dropout, longest
        self._deterministic: list[nn.Module] = []  # parts of the trunks that stay in evaluation mode; see `train`
        self.trunks = nn.ModuleDict({"base": trunk.requires_grad_(False)})
        self.heads = nn.ModuleDict()
        self.roles: dict[str, Role] = {}
        self.tokenizer = tokenizer
        self.renderer = renderer or Renderer(tokenizer)
        self.stop_ids = self.renderer.stop_ids | end_ids(trunk, tokenizer)
        self.runtime = runtime
        self.base_fingerprint = weights_fingerprint(trunk)
        self.reference_fingerprint = self.base_fingerprint
        self._peft: list[PeftModel] = []  # in a list, so that its parameters are not registered a second time
        self._selected: str | None = None
        self._tables: dict[str, int | None] = {}  # by trunk: the rows of its table of positions
        self._roots: dict[str, ShardedTrunk] = {}  # by trunk; as above, not registered twice
        self._trainable: set[str] = set()
        self.trained_roles: list[str] = []
        self.sampled_roles: set[str] = set()  # roles whose sampling was checked, see `sampling/engine.py`
        self._layout: Layout | None = None
        self._attention: str | None = None  # attention function of the current forward pass; None: the trunk's own
        self.check_stop: Callable[[], None] = lambda: (
            None
        )  # called between batches without gradients; may raise to stop

    def train(self, mode: bool = True) -> Network:
        """Set training mode: LoRA's dropout is on, the model's own dropout and noise only with `model_dropout`.

        Families call their dropout by a hundred names, and some draw random experts; all of them ask `self.training`
        first. So a trunk's own modules stay in evaluation mode, but for layers that recompute their activations, which
        transformers lets them do in training mode only: the rates that such a layer itself holds are set to 0.
        """
        super().train(mode)
        if mode and not self.model_dropout:
            if not self._deterministic:
                own = [module for name, module in self.trunks.named_modules() if ".lora_" not in name]
                for module in own:
                    if getattr(module, "gradient_checkpointing", False):
                        _set_dropout_to_0(module)
                    else:
                        self._deterministic.append(module)
            for module in self._deterministic:
                module.training = False
        return self

    # -- building roles ------------------------------------------------------------------------------------------

    def add_trainable(self, role: str, lora: LoraConfig | PeftLora | None, *, head: bool = False) -> None:
        """Add a role that trains: a LoRA adapter over the base, or, with `lora` None, all weights of a trunk.

        The first fully trained role trains the base itself, a later one a copy of it. With `head` the role also gets a
        scalar head, which starts at zero, so that every score and value starts at 0.
        """
        self._layout = None
        if lora is not None:
            check_targets(self.trunks["base"], lora)
            self._add_adapter(role, lora)
            self._check_rank(role, lora)
            self.roles[role] = Role("base", adapter=role, head=role if head else None)
        else:
            taken = {used.trunk for used in self.roles.values()}
            trunk = "base" if "base" not in taken else role
            if trunk != "base":
                self.trunks[trunk] = copy.deepcopy(self.trunks["base"])
            self.trunks[trunk].to(torch.float32)  # master weights: small updates vanish in bfloat16
            self.roles[role] = Role(trunk, head=role if head else None)
        if head:
            self._add_head(role, torch.zeros(1, self.hidden_size))
        self._mark_trainable(role)

    def add_frozen(self, role: str) -> None:
        """Add a role that runs the base as it was loaded, without training, for evaluation and chat."""
        self.roles[role] = Role("base")

    def add_reference(self, trunk: PreTrainedModel | None = None) -> None:
        """Add the frozen role "reference", whose log-probabilities the policy is compared with.

        It runs `trunk`, or without one the base as it was loaded. Call it before any training when the policy is fully
        trained: the base is copied in its current state.

        Raises:
            ModelError: the base itself already trains beside an adapter, so it cannot be the reference.
        """
        self._layout = None
        if trunk is None and self._peft:
            if any(name.startswith("trunks.base.") and ".lora_" not in name for name in self._trainable):
                raise ModelError("the base itself trains: add the role `reference` before any adapter")
            self.roles["reference"] = Role("base")
            return
        frozen = trunk if trunk is not None else copy.deepcopy(self.trunks["base"])
        self._deterministic = []
        self.trunks["reference"] = move_module(
            frozen.requires_grad_(False), self.runtime.load_device, self.runtime.dtype
        )
        self.roles["reference"] = Role("reference")
        self.reference_fingerprint = weights_fingerprint(self.trunks["reference"])

    def add_scorer(self, role: str, adapter: Path, *, trainable: bool) -> None:
        """Add a role with a scalar head from the folder of a reward adapter that was trained over exactly this base.

        Args:
            role: name of the role, such as "reward" or "value".
            adapter: PEFT folder with a score head, as trueup exports it.
            trainable: True trains adapter and head; False freezes them.

        Raises:
            ModelError: the folder is not such an adapter, or does not fit the base.
        """
        try:
            weights = load_file(adapter / "adapter_model.safetensors")
            settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
            self._add_adapter(role, restored_config(settings))
            self._load_adapter_weights(role, weights)
            self._add_head(role, weights[SCORE_HEAD_KEY])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError, SafetensorError) as error:
            if isinstance(error, ModelError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{adapter}: not a reward adapter trained by trueup ({type(error).__name__}: {reason})"
            ) from error
        self.roles[role] = Role("base", adapter=role, head=role)
        if trainable:
            self._mark_trainable(role)
        self._restore_flags()

    def add_classifier(self, role: str, classifier: PreTrainedModel, *, trainable: bool) -> None:
        """Add a role from a separate sequence classifier with one label and the network's vocabulary.

        It trains if `trainable` is True, else it is frozen.

        Raises:
            ModelError: it has no linear score head with a single label.
        """
        self._layout = None
        head = score_head(classifier)
        dtype = torch.float32 if trainable else self.runtime.dtype
        self.trunks[role] = move_module(classifier.requires_grad_(False), self.runtime.load_device, dtype)
        self._deterministic = []
        self._add_head(role, head.weight.detach().clone())
        self.roles[role] = Role(role, head=role)
        if trainable:
            self._mark_trainable(role)

    def _add_adapter(self, name: str, lora: Any) -> None:
        from peft import LoraConfig as PeftLora
        from peft import get_peft_model

        trunk, asked = cast("PreTrainedModel", self.trunks["base"]), lora
        if not isinstance(lora, PeftLora):
            lora = adapter_config(trunk, lora)
        if lora.target_parameters and self.runtime.sharded:
            raise ModelError(
                "lora: adapters of fused experts cannot be trained with strategy=fsdp\n"
                "  fix: set strategy=ddp, or name linear layers only, such as lora.targets=[q_proj, v_proj]"
            )
        try:
            if self._peft:
                self._peft[0].add_adapter(name, lora)
            else:
                self._peft.append(cast("PeftModel", get_peft_model(trunk, lora, adapter_name=name)))
        except ValueError as error:
            wanted = getattr(asked, "targets", None) or lora.target_modules
            raise ModelError(refused_targets(wanted, error)) from error
        self._selected, self._deterministic = None, []
        self._restore_flags()

    def _check_rank(self, role: str, lora: LoraConfig | PeftLora) -> None:
        """Check that some adapted matrix can use the rank.

        Raises:
            ConfigError: the rank is beyond both sides of every matrix, so full fine-tuning has fewer parameters.
        """
        sizes: dict[str, tuple[int, int]] = {}
        for name, module in self.trunks["base"].named_modules():
            ends = [getattr(module, part, None) for part in ("lora_A", "lora_B")]
            into, out = (part[role] if isinstance(part, nn.ModuleDict) and role in part else None for part in ends)
            if isinstance(into, nn.Linear) and isinstance(out, nn.Linear):  # of a convolution they are convolutions
                sizes[name] = into.in_features, out.out_features
        if not sizes:
            return
        name, largest = max(sizes.items(), key=lambda item: min(item[1]))
        if lora.r > min(largest):
            raise ConfigError(
                f"lora.r: {lora.r} is beyond every matrix that it would adapt; the largest, {name}, is {largest[1]} x "
                f"{largest[0]}\n  fix: set lora.r from 1 to {min(largest)}, or leave lora out to train every weight"
            )

    def _load_adapter_weights(self, role: str, weights: dict[str, Tensor]) -> None:
        from peft import set_peft_model_state_dict

        lora = {key: tensor for key, tensor in weights.items() if key != SCORE_HEAD_KEY}
        result = set_peft_model_state_dict(self._peft[0], lora, adapter_name=role)
        missing = [key for key in result.missing_keys if re.search(rf"\.lora_\w+\.{re.escape(role)}(\.|$)", key)]
        for kind, keys in (("unexpected", result.unexpected_keys), ("missing", missing)):
            if keys:
                raise ModelError(
                    f"the adapter does not fit this base: {len(keys)} {kind} weights ({listed(keys, 3)})\n"
                    "  fix: copy the adapter again, whole, and name the base that it was trained over"
                )

    def _add_head(self, role: str, weight: Tensor) -> None:
        head = nn.Linear(weight.shape[1], 1, bias=False, device=self.runtime.device, dtype=torch.float32)
        head.weight.data.copy_(weight)
        self.heads[role] = head.requires_grad_(False)

    def _mark_trainable(self, role: str) -> None:
        parts = self.roles[role]
        self._deterministic = []
        self.trained_roles.append(role)
        for name, _ in self.named_parameters():
            # lora_A.policy.weight, but lora_embedding_A.policy; a layer of the model may be called "value" itself.
            in_adapter = name.startswith("trunks.base.") and re.search(rf"\.lora_\w+\.{parts.adapter}(\.|$)", name)
            in_trunk = parts.adapter is None and name.startswith(f"trunks.{parts.trunk}.")
            in_head = parts.head is not None and name.startswith(f"heads.{parts.head}.")
            if in_adapter or in_trunk or in_head:
                self._trainable.add(name)
        if parts.adapter is None and parts.head is not None:
            # A scored trunk never reaches its own LM head: training it would only waste memory.
            output = output_embeddings(self.trunks[parts.trunk])
            if output is not None and output.weight is not input_embeddings(self.trunks[parts.trunk]):
                self._trainable -= {name for name, value in self.named_parameters() if value is output.weight}
        self._restore_flags()

    def _restore_flags(self) -> None:
        """Set `requires_grad` on trainable parameters only; PEFT changes the flags whenever an adapter is switched."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in self._trainable)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return (name, parameter) of every parameter that trains."""
        return ((name, value) for name, value in self.named_parameters() if name in self._trainable)

    def save_adapter(self, role: str, folder: Path) -> None:
        """Write the role's LoRA weights and PEFT configuration into `folder`."""
        adapter = cast("str", self.roles[role].adapter)
        # The base's embeddings never change, adapted or not, so they need not be stored or looked up online.
        self._peft[0].save_pretrained(str(folder), selected_adapters=[adapter], save_embedding_layers=False)
        inner = folder / adapter  # PEFT puts every adapter not named "default" into a subfolder
        for path in inner.iterdir():
            path.rename(folder / path.name)
        inner.rmdir()
        (folder / "README.md").unlink(missing_ok=True)

    # -- running -------------------------------------------------------------------------------------------------

    @property
    def hidden_size(self) -> int:
        """Width of the last hidden state, H."""
        return input_embeddings(self.trunks["base"]).shape[1]

    @property
    def vocabulary(self) -> int:
        """Number of rows of the token embedding, V."""
        return input_embeddings(self.trunks["base"]).shape[0]

    def trunk(self, role: str) -> PreTrainedModel:
        """Return the transformer of `role`, with the role's adapter switched on."""
        parts = self.roles[role]
        if parts.trunk == "base":
            self._switch(parts.adapter or "none")
        return cast("PreTrainedModel", self.trunks[parts.trunk])

    def _switch(self, adapter: str) -> None:
        """Switch on the base's adapter of this name; "none" switches all adapters off."""
        if not self._peft or self._selected == adapter:
            return
        tuner = cast("Any", self._peft[0].base_model)
        if adapter == "none":
            tuner.disable_adapter_layers()
        else:
            tuner.enable_adapter_layers()
            tuner.set_adapter(adapter)
        self._selected = adapter
        self._restore_flags()

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each layer's input for the backward pass, which recomputes the rest. Call before adding any role.

        A layer is recomputed with the adapter and attention function it ran with, whatever was switched on since.
        """
        trunk = cast("PreTrainedModel", self.trunks["base"])

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), self._recompute_with(self._selected, self._attention)

        trunk.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})

    @contextmanager
    def _recompute_with(self, adapter: str | None, attention: str | None) -> Iterator[None]:
        selected = self._selected
        self._switch(adapter or "none")
        try:
            with ExitStack() as stack:
                for trunk in self.trunks.values():  # a copy of the base recomputes its layers here too
                    stack.enter_context(use_attention(cast("PreTrainedModel", trunk), attention))
                yield
        finally:
            self._switch(selected or "none")

    def run(self, role: str, work: Callable[[], T]) -> T:
        """Return `work()`, called while the role's weights are whole.

        With sharded weights (FSDP) every rank has to call.
        """
        return self._root(role).run(work) if self.runtime.sharded else work()

    def run_independently(self, role: str, work: Callable[[], T]) -> T:
        """Return `work()`, called without gradients while every rank holds all of the role's weights (FSDP: unsharded).

        No forward pass needs another rank then, so ranks may run different numbers of them, as in sampling. Under `run`
        each forward pass is a collective operation, and different numbers would wait for each other for ever.
        """
        return run_unsharded(self._root(role), work) if self.runtime.sharded else work()

    def _root(self, role: str) -> ShardedTrunk:
        """Return the role's FSDP-sharded trunk; the trunk is sharded when it is first asked for."""
        key = self.roles[role].trunk
        if key not in self._roots:
            trunk = self.trunks[key]
            adapters = [parameter for name, parameter in trunk.named_parameters() if ".lora_" in name]
            self._roots[key] = shard(
                trunk, adapters, device=self.runtime.device, dtype=self.runtime.dtype, world=self.runtime.world
            )
        return self._roots[key]

    def check_and_shard(self) -> None:
        """Check that all processes hold equal weights, then shard every role's trunk (FSDP).

        Call it before an optimizer is made.

        Raises:
            ModelError: the processes hold different weights, and training would keep them different.
        """
        if self.runtime.world == 1:
            return
        sums = [bit_sum(value) for _, value in self.trainable() if not is_sharded(value)]
        checksum = (self.base_fingerprint, sums)
        checksums = self.runtime.gather([checksum])
        if differing := [rank for rank, other in enumerate(checksums) if other != checksums[0]]:
            raise ModelError(
                f"process {differing[0]} has loaded other weights than process 0\n"
                "  fix: let all nodes read the same model, from a disk they share or from copies of one folder"
            )
        if self.runtime.sharded:
            for role in self.roles:
                self._root(role)
            self._restore_flags()

    def forward(
        self,
        batch: Batch,
        role: str,
        want: Literal["logps", "scores", "values"],
        *,
        temperature: float = 1.0,
        entropy: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Run a micro-batch through a role and return its log-probabilities, scores or values.

        Args:
            batch: the micro-batch.
            role: the role to run.
            want: the kind of output, see Returns.
            temperature: divides the logits; for "logps".
            entropy: True also returns the entropy of each target's distribution; for "logps".

        Returns:
            "logps": log-probabilities (N,) of the targets and, with `entropy`, entropies (N,), float32 nats.
            "scores": (S,) output of the role's scalar head at each branch's last token, and None.
            "values": (N,) output of the scalar head at the state each target is predicted from, and None.
        """
        return self.run(role, lambda: self._outputs(batch, role, want, temperature, entropy))

    def _outputs(
        self, batch: Batch, role: str, want: Literal["logps", "scores", "values"], temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        hidden = self._hidden(batch, role)
        if want == "logps":
            return self._token_logps(hidden[batch.predict_at], batch.targets, role, temperature, entropy)
        positions = batch.last_at if want == "scores" else batch.predict_at
        head = self.heads[cast("str", self.roles[role].head)]
        return head(hidden[positions].float()).squeeze(-1), None

    def logps(self, batch: Batch, role: str = "policy", *, temperature: float = 1.0) -> Tensor:
        """Return the (N,) log-probabilities of the batch's targets under `role`, in nats."""
        return self(batch, role, "logps", temperature=temperature)[0]

    def states(self, batch: Batch, role: str) -> Tensor:
        """Return the (R * T, H) last hidden states of a batch of R rows of T tokens under a role, in float32."""
        return self.run(role, partial(self._hidden, batch, role)).float()

    def _hidden(self, batch: Batch, role: str) -> Tensor:
        """Return the (R * T, H) last hidden states of a batch of R rows of T tokens under a role."""
        trunk = self.trunk(role)
        if self._positions(role) is not None:
            self.check_positions(role, int(batch.position_ids.max()) + 1)
        mask, packed = batch.attention_mask, batch.sequences is not None
        if mask is not None:
            # Additive and in the compute dtype: SDPA and eager attention both take that.
            zero = torch.zeros((), dtype=self.runtime.dtype, device=mask.device)
            mask = torch.where(mask, zero, torch.finfo(self.runtime.dtype).min)
        extra = {"sequences": batch.sequences} if packed else {}
        self._attention = PACKED if packed else None
        with self.autocast(trunk), use_attention(trunk, self._attention):
            output = decoder(trunk)(
                input_ids=batch.input_ids,
                attention_mask=mask,
                position_ids=batch.position_ids,
                use_cache=False,
                **extra,
            )
        return output.last_hidden_state.flatten(0, 1)

    def check_positions(self, role: str, length: int) -> None:
        """Raise ModelError if the role's model has a table of fewer than `length` positions."""
        positions = self._positions(role)
        if positions is not None and length > positions:
            raise ModelError(
                f"a row of {length} tokens is longer than the {positions} positions of this model\n"
                f"  fix: lower max_length to {positions}, the new tokens of an answer included"
            )

    def _positions(self, role: str) -> int | None:
        key = self.roles[role].trunk
        if key not in self._tables:
            self._tables[key] = table_size(self.trunks[key])
        return self._tables[key]

    def autocast(self, trunk: nn.Module) -> torch.autocast | nullcontext[None]:
        """Return a context that computes in the runtime's dtype if the trunk's weights are float32 for training."""
        dtype = self.runtime.dtype
        if dtype == torch.float32 or next(trunk.parameters()).dtype == dtype:
            return nullcontext()
        return torch.autocast(self.runtime.device.type, dtype=dtype)

    def _token_logps(
        self, hidden: Tensor, targets: Tensor, role: str, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        head = self.lm_head(role)
        return token_logps(
            hidden.to(self.runtime.dtype), head.weight, targets, bias=head.bias, temperature=temperature,
            scale=head.scale, softcap=head.softcap, entropy=entropy,
        )  # fmt: skip

    def lm_head(self, role: str) -> LMHead:
        """Return a role's map from hidden states to logits, in the runtime's dtype.

        Raises:
            ModelError: the model has none.
        """
        trunk = self.trunk(role)
        head = output_embeddings(trunk)
        if head is None:
            raise ModelError(f"{type(trunk).__name__} has no LM head to take log-probabilities from")
        config = trunk.config.get_text_config()
        weight, bias = head_weight(head, self.roles[role].adapter)
        # Master weights are rounded here as a frozen copy is rounded on loading, so that a policy starts at KL 0.
        compute = self.runtime.dtype
        weight, bias = weight.to(compute), None if bias is None else bias.to(compute)
        return LMHead(weight, bias, logit_scale(config), logit_softcap(config))

    @property
    def layout(self) -> Layout:
        """Fastest arrangement of examples in rows (see `batching.Layout`) that all trunks compute correctly.

        It is found by trial on made-up tokens: no example may see another, and the numbers must equal those of "plain".
        """
        if self._layout is None:
            configs = [cast("PreTrainedModel", trunk).config for trunk in self.trunks.values()]
            roles = {parts.trunk: role for role, parts in self.roles.items()}.values()
            for role in roles:
                self._check_runs(role)
            candidates: tuple[Layout, ...] = ("packed", "shared") if all(map(is_plain_causal, configs)) else ()
            correct: list[Layout] = [
                layout for layout in candidates if all(self._agrees(layout, role) for role in roles)
            ]
            self._layout = correct[0] if correct else "plain"
        return self._layout

    @torch.no_grad()
    def _check_runs(self, role: str) -> None:
        """Check that the role's trunk computes last hidden states from token ids, positions and nothing else.

        Raises:
            ModelError: it does not: its family needs more, or its code fails; or what it computes is NaN or infinity,
                or the same for every token.
        """
        training = self.training
        rows = [Example([1, 2, last], (Branch([4], [True]),)) for last in (3, 4)]
        batches = [collate([row], per="token", pad_id=0, layout="plain").to(self.runtime.device) for row in rows]
        name = type(self.trunk(role)).__name__
        self.eval()
        try:
            first, second = (self.states(batch, role)[batch.predict_at] for batch in batches)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a family's own code may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ModelError(
                f"{name}: this family cannot be trained: it gives no last hidden states for "
                f"plain rows of tokens ({reason})"
            ) from error
        finally:
            self.train(training)
        if not (bool(first.isfinite().all()) and bool(second.isfinite().all())):
            raise ModelError(not_finite(name))
        if torch.equal(first, second):
            raise ModelError(
                f"{name}: it computes the same whatever token it reads: its norms or multipliers are zero\n"
                "  fix: copy the model again, whole, with the config.json that belongs to it"
            )

    @torch.no_grad()
    def _agrees(self, layout: Layout, role: str) -> bool:
        """Return True if `layout` gives made-up tokens the same states as "plain", and no row sees another row."""
        training, trunk = self.training, self.trunk(role)
        if layout == "packed" and trunk.config._attn_implementation != "sdpa":
            return False  # the user chose another attention function
        self.eval()

        def states(chosen: list[int], trunk_ids: list[int], layout: Layout) -> Tensor:
            """Return (10, H) hidden states: 3 of the chosen branch, 4 of the rejected branch, 3 of another example."""
            pair = Example(trunk_ids, (Branch(chosen, [True] * 3), Branch([6, 5, 8, 9], [True] * 4)))
            alone = Example([2, 1], (Branch([4, 3, 5], [True] * 3),))
            batch = collate([pair, alone], per="branch", pad_id=0, layout=layout).to(self.runtime.device)
            return self.states(batch, role)[batch.predict_at]

        try:
            plain = states([5, 6, 7], [1, 2, 3, 4], "plain")
            try:
                ours = states([5, 6, 7], [1, 2, 3, 4], layout)
                sibling, stranger = states([9, 8, 3], [1, 2, 3, 4], layout), states([9, 8, 3], [4, 7, 1, 6], layout)
            except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError, AssertionError):
                return False  # the model's attention does not take this layout
        finally:
            self.train(training)
        exact = self.runtime.dtype == torch.float32
        if _relative_difference(ours, plain) >= (1e-3 if exact else 5e-2):
            return False
        # A state that depends on another row may still be close: so a change of that row alone must change nothing.
        independent = (
            _relative_difference(sibling[3:], ours[3:])
            < (1e-5 if exact else 1e-2)
            > _relative_difference(stranger[7:], ours[7:])
        )
        return independent and self._agrees_at_length(layout, role)

    @torch.no_grad()
    def _agrees_at_length(self, layout: Layout, role: str) -> bool:
        """Return True if the second answer to a prompt as long as the longest row has the states of a row alone.

        So an attention window of any kind is found that is shorter than a row: with a shared prompt a branch's tokens
        lie further from the prompt than their positions say, and under a block mask a model may forget its window.
        """
        length, vocabulary = min(self.longest, table_size(self.trunk(role)) or 2**31), self.vocabulary
        if length <= _PROBED:
            return True
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(1, vocabulary, (length + 8,), generator=generator).tolist()
        prompt, first, second = ids[: length - 8], ids[length - 8 : length], ids[length:]
        both = Example(prompt, (Branch(first, [True] * 8), Branch(second, [True] * 8)))
        alone = Example(prompt, (Branch(second, [True] * 8),))

        def states(example: Example, layout: Layout) -> Tensor:
            """Return the (8, H) states of the example's last branch."""
            batch = collate([example], per="token", pad_id=0, layout=layout).to(self.runtime.device)
            return self.states(batch, role)[batch.predict_at][-8:]

        training = self.training
        self.eval()
        try:
            ours, plain = states(both, layout), states(alone, "plain")
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError):
            return False  # a row of this length, or its layout, is more than the model takes
        finally:
            self.train(training)
        return _relative_difference(ours, plain) < (2e-4 if self.runtime.dtype == torch.float32 else 5e-2)


def not_finite(name: str) -> str:
    """Return the message for a model, of the class `name`, that computes NaN or infinity."""
    return (
        f"{name}: what it computes is NaN or infinity, although its weights are finite\n"
        "  fix: take the config.json that belongs to these weights, or set dtype=float32"
    )


_PROBED = 14
"""Tokens of the rows on which every layout is tried first."""


def _set_dropout_to_0(module: nn.Module) -> None:
    """Set the rates of dropout that a layer passes to functions to 0, in place."""
    for name, value in vars(module).items():
        if isinstance(value, float) and "drop" in name:
            setattr(module, name, 0.0)


def _relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the norm of the difference over the norm of `theirs`."""
    return float((ours - theirs).norm() / theirs.norm())


def is_plain_causal(config: PreTrainedConfig) -> bool:
    """Return True if every layer attends to all earlier tokens: no sliding window, no recurrent state.

    With a block mask or packed attention, a long row would see past a model's sliding window, and a convolution or a
    recurrent state would run on from one packed row into the next.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    text = config.get_text_config()
    windows = [name for name in text.to_dict() if re.search(r"(?<!use_sliding_)window(_size|_len)?$", name)]
    if any(getattr(text, name, None) for name in [*windows, "attention_chunk_size"]):
        return False
    kinds = getattr(text, "layer_types", None) or ["full_attention"]
    try:
        layers = DynamicCache(config=config).layers
    except (AttributeError, TypeError, ValueError, KeyError):  # a configuration that names no layers as others do
        return False
    return set(kinds) <= {"full_attention", "attention"} and all(type(layer) is DynamicLayer for layer in layers)
