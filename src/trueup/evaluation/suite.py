"""Measure models: every task on every model, one row an item, into files from which the report is made.

    evaluation/plan.json          what was measured on what, what was not and why, seconds
    evaluation/<model>.jsonl      a row an item (items.py); with the fingerprint of all that it depends on
    evaluation/<model>.wins.jsonl verdicts against the model that others are held against
    evaluation/reward-model.jsonl what the reward model makes of held-out rankings

A model whose file has the same fingerprint is not measured again, so a stopped evaluation goes on where it was.
"""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.errors import DataError
from trueup.evaluation import tasks
from trueup.evaluation.items import Item, read_header, read_items, write_items
from trueup.evaluation.judging import judge_of_refusals, verdicts
from trueup.evaluation.plan import REWARD_FILE, Plan, counts, not_possible, read_plan, write_plan
from trueup.files import MODEL_CARD, fingerprint
from trueup.loading import load_causal_lm, load_classifier, load_tokenizer
from trueup.model_reward import classifier_of, model_reward
from trueup.models import Network
from trueup.rewards import Reward, from_function

if TYPE_CHECKING:
    from trueup.runtime import Runtime

FORMAT = 1
"""Raised when the same inputs would be measured otherwise, so that older files are not taken for new ones."""
_SETTINGS_OF_NO_EFFECT = {"against", "show", "judge", "gates"}
"""Keys that change no row of a model; the model held against is in the key by its contents."""


def measure(plan: Plan, runtime: Runtime, note: Callable[[str], None]) -> None:
    """Run every task that the plan asks for on every model, those aside that are measured already.

    Raises:
        TrueupError: a set cannot be read, a model cannot be loaded, a judge gives no verdict.
    """
    started = time.perf_counter()
    bench = _Bench(plan, runtime)
    note(f"evaluation: {counts(plan.sets)}; models: {', '.join(plan.models)}")
    missing = not_possible(plan) | bench.leave_out_long_rankings()
    if plan.reward is not None and plan.wanted("reward-model") and plan.sets.rankings:
        bench.measure_reward_model(note)
    for name in sorted(plan.models, key=lambda one: one != plan.against):
        missing |= bench.measure_model(name, note)
    bench.release()
    for name in plan.models:
        if name != plan.against and plan.wanted("win-rate"):
            missing |= _decide_wins(plan, name, note)
    before = read_plan(plan.place).get("seconds", 0.0)
    seconds = time.perf_counter() - started + (before if bench.reused else 0.0)
    write_plan(plan, missing, seconds)


class _Bench:
    """The networks that are kept while one model after the other is measured."""

    def __init__(self, plan: Plan, runtime: Runtime) -> None:
        self.plan, self.runtime = plan, runtime
        self.reused = False
        self._reference: Network | None = None
        self._rewards: dict[str, tuple[Reward, Network | None]] = {}
        self._key = _shared_key(plan)

    def leave_out_long_rankings(self) -> dict[str, str]:
        """Take rankings over `evaluate.max_length` out of the plan, by the tokens of the model held against."""
        limit, rankings = self.plan.settings.max_length, self.plan.sets.rankings
        if limit is None or not rankings:
            return {}
        examples = tasks.ranking_examples(self.reference(), rankings)
        kept = [row for row, one in zip(rankings, examples, strict=True) if one.longest <= limit]
        if not kept:
            most = max(one.longest for one in examples)
            raise DataError(f"evaluate.max_length={limit} leaves no ranking; the longest has {most} tokens")
        self.plan.sets.rankings = kept
        left = len(rankings) - len(kept)
        return (
            {f"{left} of {len(rankings)} rankings": f"longer than evaluate.max_length={limit} tokens"} if left else {}
        )

    def measure_reward_model(self, note: Callable[[str], None]) -> None:
        """The reward model on held-out rankings."""
        path, source = self.plan.place / REWARD_FILE, self.plan.reward
        if source is None or ".py:" in source or self._measured(path, source):
            return
        note("evaluating the reward model")
        judge = self._open(source)[1]
        assert judge is not None
        write_items(path, tasks.reward_model(judge, self.plan.sets.rankings, 4096), {"key": self._key_of(source)})

    def measure_model(self, name: str, note: Callable[[str], None]) -> dict[str, str]:
        """All tasks on one model; returns what could not be measured on it, and why."""
        path, source = self.plan.file(name), self.plan.models[name]
        if self._measured(path, source):
            note(f"evaluation: {name} was measured before, and nothing it depends on has changed")
            return read_header(path).get("missing", {})
        note(f"evaluating {name}")
        clock = time.perf_counter()
        is_reference = name == self.plan.against
        network = self.reference() if is_reference else self._policy(source)
        subject, missing = self._subject(name, network, is_reference=is_reference)
        items = self._items(subject) + self._harness(source)
        header = {"model": name, "source": source, "key": self._key_of(source), "missing": missing}
        write_items(path, items, header | {"seconds": round(time.perf_counter() - clock, 2)})
        del network, subject
        gc.collect()
        return missing

    def _subject(self, name: str, network: Network, *, is_reference: bool) -> tuple[tasks.Subject, dict[str, str]]:
        config, missing = self.plan.settings, dict[str, str]()
        reference: Network | None = self.reference()
        if reference is not None and network.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
            reference = None
            missing[f"KL of {name}"] = f"its tokenizer is not {self.plan.against}'s"
        subject = tasks.Subject(
            network, reference, is_reference, config.max_new_tokens, temperature=config.temperature, seed=self.plan.seed
        )
        return subject, missing

    def _items(self, subject: tasks.Subject) -> list[Item]:
        chosen, config = self.plan.sets, self.plan.settings
        grader = from_function(config.grader) if config.grader else None
        refused = judge_of_refusals(config)
        proxy, gold = self._reward(self.plan.reward), self._reward(self.plan.gold)
        items: list[Item] = []
        if chosen.capability:
            items += tasks.capability(subject, chosen.capability, grader)
        if chosen.forgetting:
            items += tasks.forgetting(subject, chosen.forgetting)
        for task, asked in (("over-refusal", chosen.innocent), ("unsafe-compliance", chosen.unsafe)):
            if asked:
                items += tasks.refusals(subject, task, asked, refused)
        if chosen.prompts:
            items += tasks.answers(subject, chosen.prompts, proxy, gold)
        if chosen.rankings and self.plan.wanted("preferences"):
            items += tasks.preferences(subject, chosen.rankings)
        return items

    def _harness(self, source: str) -> list[Item]:
        config = self.plan.settings
        if not config.harness:
            return []
        from trueup.evaluation.harness import run_harness

        return run_harness(source, config.harness, config.harness_limit, self.runtime)

    def reference(self) -> Network:
        """The model that others are held against, loaded once."""
        if self._reference is None:
            self._reference = self._policy(self.plan.models[self.plan.against])
        return self._reference

    def release(self) -> None:
        """Let go of the networks."""
        self._reference = None
        self._rewards.clear()
        gc.collect()

    def _policy(self, source: str) -> Network:
        trust = self.plan.trust_remote_code
        trunk = load_causal_lm(source, self.runtime, trust_remote_code=trust)
        network = Network(trunk, load_tokenizer(source, trust_remote_code=trust), self.runtime)
        network.add_frozen("policy")
        return network

    def _reward(self, source: str | None) -> Reward | None:
        return None if source is None else self._open(source)[0]

    def _open(self, source: str) -> tuple[Reward, Network | None]:
        """A reward, loaded once, and its network if it is a model."""
        if source not in self._rewards:
            self._rewards[source] = self._opened(source)
        return self._rewards[source]

    def _opened(self, source: str) -> tuple[Reward, Network | None]:
        if ".py:" in source:
            return from_function(source), None
        folder, trust = classifier_of(source), self.plan.trust_remote_code
        classifier = load_classifier(folder, self.runtime, trust_remote_code=trust)
        network = Network(classifier, load_tokenizer(folder, trust_remote_code=trust), self.runtime)
        network.add_classifier("reward", classifier, trainable=False)
        return model_reward(network, max_tokens=4096), network

    def _key_of(self, source: str) -> str:
        return hashlib.sha256(f"{self._key} {_content(source)} {self.runtime.dtype}".encode()).hexdigest()

    def _measured(self, path: Path, source: str) -> bool:
        same = read_header(path).get("key") == self._key_of(source)
        self.reused = self.reused or same
        return same


def _shared_key(plan: Plan) -> str:
    """A hash of all that every model's rows depend on."""
    settings = plan.settings.model_dump(mode="json", exclude=_SETTINGS_OF_NO_EFFECT)
    parts: list[Any] = [FORMAT, settings, plan.seed, _content(plan.models[plan.against])]
    parts += [_content(source) for source in (plan.reward, plan.gold, plan.settings.grader) if source]
    parts.append(hashlib.sha256(repr(plan.sets).encode()).hexdigest())
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _content(source: str) -> str:
    """A hash of a model's or function file's contents; a hub name stands for itself."""
    place = Path(source.rpartition(":")[0] if ".py:" in source else classifier_of(source))
    return fingerprint([place], ignore=[MODEL_CARD]) if place.exists() else source


def _decide_wins(plan: Plan, name: str, note: Callable[[str], None]) -> dict[str, str]:
    """Verdicts between a model's answers and the others', written to its file; returns what could not be had."""
    ours, theirs = read_items(plan.file(name)), read_items(plan.file(plan.against))
    key = hashlib.sha256(
        repr([plan.settings.judge, plan.settings.judge_model, read_header(plan.file(name)).get("key"),
              read_header(plan.file(plan.against)).get("key")]).encode()
    ).hexdigest()  # fmt: skip
    if read_header(plan.wins_file(name)).get("key") == key:
        return {}
    decided = verdicts(plan.settings, {one.id: one.prompt for one in plan.sets.prompts}, ours, theirs, note)
    if decided is None:
        plan.wins_file(name).unlink(missing_ok=True)
        return {}
    write_items(plan.wins_file(name), decided.items, {"model": name, "key": key, "judge": decided.judge})
    unjudged = sum("outcome" not in item.values for item in decided.items)
    return {f"{unjudged} verdicts on {name}": "the judge's replies could not be read"} if unjudged else {}
