"""Run an evaluation: every task on every model, written to the items files from which the report is made.

    evaluation/plan.json          the measurements made, those not made and why, the seconds they took
    evaluation/<model>.jsonl      one row per item (items.py), and the fingerprint of all that it depends on
    evaluation/<model>.wins.jsonl verdicts on pairs of answers: the model's and the reference's
    evaluation/reward-model.jsonl margins of the reward model on held-out rankings
    evaluation/judge.jsonl        an endpoint's verdicts on held-out rankings, to measure the judge itself

A model whose file has the same fingerprint is not measured again, so a stopped evaluation continues from there. With
`Plan.store` that holds over evaluations: files are kept there by all that they depend on.

In a run of several processes, each answers and scores its share of the prompts; the first process alone calls users'
functions and endpoints, decides wins and writes files.
"""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.config.functions import UserFunction
from trueup.config.paths import is_address
from trueup.data.rendering.choice import read_template
from trueup.data.rendering.renderer import Renderer
from trueup.errors import DataError
from trueup.evaluation import tasks
from trueup.evaluation.endpoint import Endpoint, Usage
from trueup.evaluation.grader import AnswerGrader, check_grader, open_grader
from trueup.evaluation.items import Item, read_header, read_items, write_items
from trueup.evaluation.judges import JoinedRefusals, agreement, judge_of_refusals, verdicts
from trueup.evaluation.plan import (
    JUDGE_FILE,
    PLAN_FILE,
    REWARD_FILE,
    Plan,
    counts,
    measures_reward,
    unmeasurable,
    write_plan,
)
from trueup.evaluation.published.measuring import Scorer, measure_rewards, measure_set
from trueup.evaluation.published.table import PUBLISHED, judge_question
from trueup.evaluation.remote import NO_LOGPS, RemoteSubject, opened
from trueup.evaluation.rows import evenly_spread
from trueup.evaluation.sets import lacking_column
from trueup.models.loading import check_vocabulary, load_causal_lm, load_classifier, load_tokenizer, revision
from trueup.models.network import Network
from trueup.models.reward_model import classifier_source, model_reward, require_varied, score_on_main
from trueup.models.rewards import Reward, reward_from_file
from trueup.models.weights import weights_sha256
from trueup.system.files import MODEL_CARD, atomic_write_bytes, fingerprint
from trueup.system.text import home_path

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from trueup.data.rendering.messages import Conversation
    from trueup.runtime import Runtime

FORMAT = 1
"""Increased when the same inputs would be measured differently, so that older files are not taken for new ones."""


def measure(plan: Plan, runtime: Runtime, note: Callable[[str], None]) -> None:
    """Run every task of the plan on every model and write the results; models with a valid items file are skipped.

    Raises:
        TrueupError: a set cannot be read, a model cannot be loaded, or a judge's endpoint cannot be reached.
    """
    plan, unscored = _scorable(plan)
    if plan.settings.chat_template or plan.settings.template:  # a wrong template stops before any model loads
        for source in plan.models.values():
            if not is_address(source):
                _tokenizer(plan, source)
    # From here on the folder holds files of two evaluations: without plan.json no report is made of them.
    runtime.from_first(lambda: (plan.place / PLAN_FILE).unlink(missing_ok=True))
    bench = _Bench(plan, runtime)
    if bench.grader is not None and plan.sets.capability:
        check_grader(bench.grader, plan.sets.capability)
    missing = unmeasurable(plan) | unscored | dict(plan.trained) | plan.left_out | bench.leave_out_long()
    note(f"evaluation: {counts(plan.sets)}; models: {', '.join(plan.models)}")
    if plan.store is not None:
        bench.compare_weights(note)
    if measures_reward(plan, missing):
        bench.measure_reward_model(note, with_rankings="reward-model" not in missing)
    for name in sorted(plan.models, key=lambda name: name != plan.against):
        missing |= bench.measure_model(name, note)
    bench.release()
    wins: list[str] = []
    for name in [name for name in plan.models if name != plan.against and plan.wanted("win-rate")]:
        unjudged = runtime.from_first(partial(_decide_wins, plan, name, note))
        if unjudged is not None:
            wins.append(name)
            missing |= unjudged
    judged = bool(wins) and runtime.from_first(partial(_judge_rankings, plan, note))
    runtime.from_first(lambda: write_plan(plan, missing, wins, bench.hashes, judged=judged))


def _scorable(plan: Plan) -> tuple[Plan, dict[str, str]]:
    """Return the plan without a proxy reward that takes a column which its prompts lack, and "reward" -> that reason.

    Only a proxy that `evaluate.reward` does not name, so that the stages' reward is used: another one is an error.

    Raises:
        DataError: a reward that the section names takes such a column.
    """
    for key in ("reward", "gold"):
        source = getattr(plan, key)
        if source is not None and plan.sets.prompts and (problem := lacking_column(source, plan.sets.prompts)):
            if key == "reward" and plan.settings.reward is None:
                return replace(plan, reward=None), {"reward": problem}
            raise DataError(f"evaluate.{key}: {problem}\n  fix: give prompts with this column in evaluate.prompts")
    return plan, {}


def _tokenizer(plan: Plan, source: str) -> PreTrainedTokenizerBase:
    """Return a model's tokenizer, with the chat template and variables of the evaluation."""
    settings = plan.settings
    return load_tokenizer(
        source, trust_remote_code=plan.trust.code, chat_template=settings.chat_template,
        template=settings.template,
    )  # fmt: skip


class _Bench:
    """Measures one model after the other, and keeps the reference model and the rewards loaded between them."""

    def __init__(self, plan: Plan, runtime: Runtime) -> None:
        self.plan, self.runtime = plan, runtime
        self._reference: Network | None = None
        self._rewards: dict[str, tuple[Reward, Network | None]] = {}
        self._asked: list[Usage] = []
        self._weights: dict[str, str] = {}

    @cached_property
    def grader(self) -> AnswerGrader | None:
        """The user's grader of written answers; None where `evaluate.grader` is unset."""
        spec = self.plan.settings.grader
        return open_grader(spec, self.runtime) if spec else None

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Name -> hash of each set, judge and setting, which with the model decide the rows of an items file."""
        return input_hashes(self.plan)

    def leave_out_long(self) -> dict[str, str]:
        """Remove rankings and prompts longer than `evaluate.max_length` from the plan.

        Lengths are counted in tokens of the reference model.

        Returns:
            The number removed, such as "3 of 80 rankings" -> reason.
        """
        limit, chosen = self.plan.settings.max_length, self.plan.sets
        if limit is None:
            return {}
        ranking_sizes = [example.longest for example in tasks.ranking_examples(self.reference(), chosen.rankings)]
        prompt_sizes = [len(self.reference().renderer.prompt(row.prompt)) for row in chosen.prompts]
        rankings = [row for row, size in zip(chosen.rankings, ranking_sizes, strict=True) if size <= limit]
        room = limit - self.plan.settings.max_new_tokens
        prompts = [row for row, size in zip(chosen.prompts, prompt_sizes, strict=True) if size <= room]
        left_out: dict[str, str] = {}
        for set_name, before, after in (("rankings", chosen.rankings, rankings), ("prompts", chosen.prompts, prompts)):
            if before and not after:
                raise DataError(f"evaluate.max_length={limit} leaves none of {len(before)} {set_name}; raise it")
            if len(after) < len(before):
                with_answer = " with their answers" if set_name == "prompts" else ""
                why = f"longer than evaluate.max_length={limit} tokens{with_answer}"
                left_out[f"{len(before) - len(after)} of {len(before)} {set_name}"] = why
        chosen.rankings, chosen.prompts = rankings, evenly_spread(prompts, self.plan.settings.samples)
        return left_out

    def measure_reward_model(self, note: Callable[[str], None], *, with_rankings: bool = True) -> None:
        """Score held-out rankings and published sets with the reward model and write the items to reward-model.jsonl.

        `with_rankings` is False where the evaluation measures no reward model on its rankings.
        """
        path, source = self.plan.place / REWARD_FILE, self.plan.reward
        if source is None or ".py:" in source or self._measured(path, source):
            return
        note("evaluating the reward model")
        clock, (reward, judge) = time.perf_counter(), self._open(source)
        assert judge is not None
        rankings = self.plan.sets.rankings if with_rankings else ()
        items = tasks.reward_model(judge, rankings, self.plan.settings.max_tokens) if rankings else []
        items += measure_rewards(reward, self.plan.sets.published)
        seconds = round(time.perf_counter() - clock, 2)
        self._write(path, items, source, {"seconds": seconds})

    def measure_model(self, name: str, note: Callable[[str], None]) -> dict[str, str]:
        """Run all tasks on one model and write its items file. Returns name of a measurement not made -> reason."""
        path, source = self.plan.file(name), self.plan.models[name]
        if self._measured(path, source) or self._recalled(name):
            note(f"evaluation: {name} was measured before, and nothing it depends on has changed")
            if self.runtime.from_first(lambda: self._graded_again(path)):
                note(f"evaluation: the stored replies of {name} are graded by the rules of this version")
            return self.runtime.from_first(lambda: read_header(path).get("missing", {}))
        note(f"evaluating {name}")
        clock = time.perf_counter()
        refused = judge_of_refusals(self.plan.settings)
        self._asked.clear()
        items, missing = (self._remote if is_address(source) else self._local)(name, refused)
        usage = refused.usage.as_dict() if isinstance(refused, Endpoint) else {}
        missing |= _unjudged(name, items, usage)
        if self._asked:  # of published sets, and of refusals
            usage = sum(self._asked, refused.usage if isinstance(refused, Endpoint) else Usage()).as_dict()
        seconds = round(time.perf_counter() - clock, 2)
        header = {"model": name, "source": source, "missing": missing, "seconds": seconds, "usage": usage}
        header |= {"weights": self._weights.get(source), "date": date.today().isoformat()}
        self._write(path, items, source, header)
        self.runtime.from_first(lambda: self._keep(name))
        gc.collect()
        return missing

    def compare_weights(self, note: Callable[[str], None]) -> None:
        """Say at once which models have the same weights; those that were not measured are loaded for it."""
        by_hash: dict[str, str] = {}
        for name, source in self.plan.models.items():
            if is_address(source):
                continue
            path = self.plan.file(name)
            header = read_header(path) if self._measured(path, source) or self._recalled(name) else {}
            weights = header.get("weights") or self._hashed(name, source)
            first = by_hash.setdefault(self.runtime.from_first(lambda value=weights: value), name)
            if first != name:
                note(f"identical weights: {name} and {first} are the same, tensor for tensor")

    def _hashed(self, name: str, source: str) -> str:
        if source not in self._weights:
            self.reference() if name == self.plan.against else self._policy(source)
            gc.collect()
        return self._weights[source]

    def _local(self, name: str, judge: Callable[..., list[float]]) -> tuple[list[Item], dict[str, str]]:
        """Measure a model that is loaded here. Returns its items, and what was not measured -> why."""
        source, is_reference = self.plan.models[name], name == self.plan.against
        network = self.reference() if is_reference else self._policy(source)
        subject, missing = self._subject(name, network, is_reference=is_reference)
        items = self._items(subject, judge) + self._harness(source)
        return items + self._published(name, subject, judge, missing), missing

    def _remote(self, name: str, judge: Callable[..., list[float]]) -> tuple[list[Item], dict[str, str]]:
        """Measure a model behind an endpoint. Returns its items, and what was not measured -> why."""
        config, chosen, source = self.plan.settings, self.plan.sets, self.plan.models[name]
        counter = self._counter()
        subject = RemoteSubject(
            opened(source, list(self.plan.models).index(name)), config.max_new_tokens, config.temperature,
            self.plan.seed, self.plan.file(name).with_suffix(".replies.jsonl"), partial(tasks.text_size, counter),
            self.runtime,
        )  # fmt: skip
        asked = [question for question in chosen.capability if not question.choices]
        items = tasks.written(subject, asked, self.grader) if asked else []
        items += self._refusals(subject, judge)
        if chosen.prompts:
            rewards = {"reward": self._reward(self.plan.reward), "gold": self._reward(self.plan.gold)}
            items += subject.answers(chosen.prompts, rewards)
        unknown = {"preferences": chosen.rankings and self.plan.wanted("preferences"), "forgetting": chosen.forgetting}
        unknown |= {"KL": chosen.prompts, "entropy": chosen.prompts}
        missing = {f"{task} of {name}": NO_LOGPS for task, rows in unknown.items() if rows}
        if choices := len(chosen.capability) - len(asked):
            missing[f"{choices} multiple-choice questions of {name}"] = NO_LOGPS
        if config.harness:
            missing[f"harness of {name}"] = "the harness runs models that are loaded here"
        if chosen.prompts and not all("ended" in item.values for item in items if item.task == "answers"):
            missing[f"ends by itself of {name}"] = "the endpoint gives no finish_reason"
        return items + self._published(name, subject, judge, missing), missing

    def _counter(self) -> Network | None:
        """The network whose tokens measure the length of answers; None where characters do: the reference is remote."""
        return None if is_address(self.plan.models[self.plan.against]) else self.reference()

    def _subject(self, name: str, network: Network, *, is_reference: bool) -> tuple[tasks.Subject, dict[str, str]]:
        config, against = self.plan.settings, self.plan.against
        reference = self._counter()
        other = reference is None or network.tokenizer.get_vocab() != reference.tokenizer.get_vocab()
        subject = tasks.Subject(
            network, None if other else reference, is_reference, config.max_new_tokens, counter=reference,
            max_tokens=config.max_tokens, temperature=config.temperature, seed=self.plan.seed,
        )  # fmt: skip
        # With another tokenizer, tokens are counted in the reference's; KL, entropy and preferences have no meaning.
        why = f"its tokenizer is not {against}'s" if reference is not None else f"{against}: {NO_LOGPS}"
        return subject, dict.fromkeys(
            (f"KL of {name}", f"entropy of {name}", f"preferences of {name}"), why
        ) if other else {}

    def _items(self, subject: tasks.Subject, judge: Callable[[Sequence[Conversation]], list[float]]) -> list[Item]:
        chosen = self.plan.sets
        proxy, gold = self._reward(self.plan.reward), self._reward(self.plan.gold)
        items: list[Item] = []
        if chosen.capability:
            items += tasks.capability(subject, chosen.capability, self.grader)
        if chosen.forgetting:
            items += tasks.forgetting(subject, chosen.forgetting)
        items += self._refusals(subject, judge)
        if chosen.prompts:
            items += tasks.answers(subject, chosen.prompts, proxy, gold)
        if chosen.rankings and self.plan.wanted("preferences"):
            reference = self.reference_rankings if subject.counts_alike and not subject.is_reference else None
            items += tasks.preferences(subject, chosen.rankings, reference)
        return items

    def _refusals(self, subject: tasks.Writer, judge: Callable[..., list[float]]) -> list[Item]:
        chosen, refused = self.plan.sets, self._asked_once(judge)
        checked = self._asked_once(judge.check) if isinstance(judge, JoinedRefusals) else None
        items: list[Item] = []
        for task, prompts in (("over-refusal", chosen.innocent), ("unsafe-compliance", chosen.unsafe)):
            if prompts:
                items += tasks.refusals(subject, task, prompts, refused, checked)
        return items

    def _published(
        self, name: str, subject: tasks.Subject | RemoteSubject, judge: Callable[..., list[float]],
        missing: dict[str, str],
    ) -> list[Item]:  # fmt: skip
        """Return the items of the published sets; `missing` gets what was not measured, such as missing verdicts."""
        scorer = Scorer(self.plan.settings, self._asked_once(judge), self.runtime.from_first)
        result: list[Item] = []
        for set_name, rows in self.plan.sets.published.items():
            if PUBLISHED[set_name].how == "ranked":
                continue
            if PUBLISHED[set_name].how in ("letters", "answers") and isinstance(subject, RemoteSubject):
                missing[f"{set_name} of {name}"] = NO_LOGPS
                continue
            items, endpoint = measure_set(subject, set_name, rows, scorer)
            usage = endpoint.usage.as_dict() if endpoint else {}
            self._asked += [endpoint.usage] if endpoint else []
            judged = PUBLISHED[set_name].how in ("judged", "refused")
            if silent := sum("score" not in item.values for item in items) if judged else 0:
                missing[f"{silent} of {len(items)} replies of {name} ({set_name})"] = _why_unjudged(usage)
            result += items
        return result

    def _harness(self, source: str) -> list[Item]:
        config = self.plan.settings
        if not config.harness:
            return []
        from trueup.evaluation.harness import run_harness

        alone = replace(self.runtime, world=1, strategy="one")
        return self.runtime.from_first(lambda: run_harness(source, config.harness, config.harness_limit, alone))

    def reference(self) -> Network:
        """Return the network of the reference model, with which the others are compared; it is loaded once."""
        if self._reference is None:
            self._reference = self._policy(self.plan.models[self.plan.against])
        return self._reference

    @cached_property
    def reference_rankings(self) -> Tensor:
        """The reference model's `ranking_logps` of the held-out rankings, (2 N,), computed once."""
        return tasks.ranking_logps(self.reference(), self.plan.sets.rankings, self.plan.settings.max_tokens)

    def release(self) -> None:
        """Free the memory of the reference model and the rewards."""
        self._reference = None
        self._rewards.clear()
        gc.collect()

    def _policy(self, source: str) -> Network:
        trunk = load_causal_lm(source, self.runtime, trust=self.plan.trust)
        if self.runtime.is_main:
            self._weights[source] = weights_sha256(trunk)
        tokenizer = _tokenizer(self.plan, source)
        check_vocabulary(trunk, tokenizer, source)
        renderer = Renderer(tokenizer, train_thinking=self.plan.settings.train_thinking is not False)
        network = Network(trunk, tokenizer, self.runtime, renderer)
        network.add_frozen("policy")
        return network

    def _reward(self, source: str | None) -> Reward | None:
        return None if source is None else self._open(source)[0]

    def _open(self, source: str) -> tuple[Reward, Network | None]:
        """Return the reward that `source` names, loaded once, and its network (None where the reward is a function)."""
        if source not in self._rewards:
            self._rewards[source] = self._load_reward(source)
        return self._rewards[source]

    def _load_reward(self, source: str) -> tuple[Reward, Network | None]:
        if ".py:" in source:
            return score_on_main(reward_from_file(source), self.runtime), None
        folder, trust = classifier_source(source), self.plan.trust
        classifier = load_classifier(folder, self.runtime, trust=trust)
        network = Network(classifier, load_tokenizer(folder, trust_remote_code=trust.code), self.runtime)
        network.add_classifier("reward", classifier, trainable=False)
        reward = model_reward(network, max_tokens=self.plan.settings.max_tokens)
        return require_varied(reward, f"reward: {source}"), network

    def _key_of(self, source: str) -> str:
        parts = [FORMAT, self.hashes, _content(source), str(self.runtime.dtype)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _measured(self, path: Path, source: str) -> bool:
        return self.runtime.from_first(lambda: read_header(path).get("key") == self._key_of(source))

    def _kept(self, name: str) -> Path | None:
        """The file of `Plan.store` for a model's results; None where nothing is kept by content.

        The address of an endpoint does not say which weights answer there.
        """
        source = self.plan.models[name]
        if self.plan.store is None or is_address(source):
            return None
        parts = [self._key_of(source), name, name == self.plan.against, revision(source)]
        return self.plan.store / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.jsonl"

    def _recalled(self, name: str) -> bool:
        """Copy a model's results from the store; return True if they were there."""
        path = self.plan.file(name)

        def recall() -> None:
            kept = self._kept(name)
            if kept is not None and kept.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write_bytes(path, kept.read_bytes())

        self.runtime.from_first(recall)
        return self._measured(path, self.plan.models[name])

    def _keep(self, name: str) -> None:
        if (kept := self._kept(name)) is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_bytes(kept, self.plan.file(name).read_bytes())

    def _graded_again(self, path: Path) -> bool:
        """Grade the stored replies of an items file anew if other rules graded them; return True if it was done."""
        header, chosen = read_header(path), self.plan.sets
        if header.get("rules") == rules():
            return False
        written = [question for question in chosen.capability if not question.choices] if self.grader is None else []
        asked = {question.id: question for question in written}
        by_rules = self.plan.settings.refusals == "detector"
        prompts = {prompt.id: prompt for prompt in (*chosen.innocent, *chosen.unsafe) if by_rules}
        items = [
            tasks.refused_again(tasks.graded(item, asked.get(item.id)), prompts.get(item.id))
            for item in read_items(path)
        ]
        write_items(path, items, header | {"rules": rules()})
        return bool(asked or prompts)

    def _write(self, path: Path, items: list[Item], source: str, header: dict[str, Any]) -> None:
        # The key is made by the first process alone: it reads every file of every model.
        self.runtime.from_first(
            lambda: write_items(path, items, {"key": self._key_of(source), "rules": rules()} | header)
        )

    def _asked_once(self, judge: Callable[[Sequence[Conversation]], list[float]]) -> Callable[..., list[float]]:
        return lambda talks: self.runtime.from_first(lambda: judge(talks))


def _unjudged(name: str, items: list[Item], usage: Mapping[str, Any]) -> dict[str, str]:
    """Count the replies on which the refusal judge gave no readable verdict.

    Returns:
        "<count> of <number> replies of <model> (<task>)" -> reason; empty where all were judged.
    """
    missing: dict[str, str] = {}
    for task in ("over-refusal", "unsafe-compliance"):
        replies = [item for item in items if item.task == task]
        if silent := sum("refused" not in item.values for item in replies):
            missing[f"{silent} of {len(replies)} replies of {name} ({task})"] = _why_unjudged(usage)
    return missing


def input_hashes(plan: Plan) -> dict[str, str]:
    """Return name -> hash of each set, of the judges and of the settings.

    Two evaluations can be compared if their hashes are equal.
    """
    config, chosen = plan.settings, plan.sets
    judge: list[object] = [config.refusals]
    if config.refusals != "detector":
        judge += [config.judge, config.judge_model]
    if config.refusals == "both":  # the rules choose what the endpoint reads, so other rules ask it again
        judge += [config.refusals_sample, rules()]
    drawn = [config.max_new_tokens, config.temperature, plan.seed, config.max_length]
    harness = [_content(name) for name in config.harness]
    parts: dict[str, object] = {
        name: getattr(chosen, name) for name in chosen.__dataclass_fields__ if name != "published"
    }
    if chosen.published:
        sections = {name: config.sets[name] for name in chosen.published}
        questions = [judge_question(name, section.judge_prompt) for name, section in sections.items()]
        lengths = [section.max_new_tokens for section in sections.values()]
        asked = [config.judge, config.judge_model] if any(map(config.judges_set, sections)) else []
        by_rules = any(PUBLISHED[name].how in ("refused", "written", "flip") for name in chosen.published)
        graded = rules() if by_rules else ""
        parts["published"] = [chosen.published, lengths, questions, asked, graded]
    parts |= {"refusals by": judge, "sampling": drawn, "harness": [harness, config.harness_limit]}
    grader = config.grader and _content(config.grader)
    if grader and ".py:" not in str(config.grader):  # a convention of ours, by name
        grader += rules()
    parts |= {"tasks": config.tasks, "grader": grader}
    parts |= {"reward": plan.reward and _content(plan.reward), "gold": plan.gold and _content(plan.gold)}
    parts["reference"] = _content(plan.models[plan.against])
    if config.chat_template or config.template:
        parts["template"] = [config.chat_template and read_template(config.chat_template), config.template]
    if config.train_thinking is False:
        parts["train_thinking"] = False
    return {name: hashlib.sha256(repr(part).encode()).hexdigest()[:16] for name, part in parts.items()}


@cache
def rules() -> str:
    """Return a hash of the rules by which written answers are graded and refusals are found, as they are in the code.

    Replies that other rules judged are judged again: those of our own sets from the stored text, without the model.
    """
    package = Path(__file__).parents[1]
    files = [package / "evaluation" / "grading.py", package / "evaluation" / "conventions.py"]
    files += [package / "data" / "refusal.py"]
    folders = (package / "evaluation" / "answers", package / "data" / "refusals")
    files += [file for folder in folders for file in sorted(folder.glob("*.py"))]
    return fingerprint(files)[:16]


def _content(source: str) -> str:
    """Return a hash of the contents of a model folder or a function's file; the name itself for a model on the hub."""
    function = UserFunction.parse(source)
    place = home_path(function.file if function else classifier_source(source))
    settings = str(function.settings) if function and function.settings else ""
    return fingerprint([place], ignore=[MODEL_CARD]) + settings if place.exists() else source


def _decide_wins(plan: Plan, name: str, note: Callable[[str], None]) -> dict[str, str] | None:
    """Decide for each prompt if the model's answer or the reference model's is better; write the model's wins file.

    Returns:
        "<count> of <number> verdicts on <model>" -> reason, for pairs without a verdict; None where there is no judge.
    """
    ours, theirs = read_items(plan.file(name)), read_items(plan.file(plan.against))
    keys = [read_header(plan.file(model)).get("key") for model in (name, plan.against)]
    key = hashlib.sha256(repr([plan.settings.judge, plan.settings.judge_model, keys]).encode()).hexdigest()
    path = plan.wins_file(name)
    if read_header(path).get("key") != key:
        clock = time.perf_counter()
        prompts = {row.id: row.prompt for row in plan.sets.prompts}
        decided = verdicts(plan.settings, prompts, ours, theirs, note)
        if decided is None:
            return None
        seconds = round(time.perf_counter() - clock, 2)
        header = {"model": name, "key": key, "judge": decided.judge, "seconds": seconds, "usage": decided.usage}
        write_items(path, decided.items, header)
    items, usage = read_items(path), read_header(path).get("usage") or {}
    unjudged = sum("outcome" not in item.values for item in items)
    again = f"; delete {path.name} to ask again"
    return {f"{unjudged} of {len(items)} verdicts on {name}": _why_unjudged(usage) + again} if unjudged else {}


def _why_unjudged(usage: Mapping[str, Any]) -> str:
    """Return why an endpoint gave no verdict, with an example, from its `Usage` as a dict."""
    reasons: list[str] = []
    if usage.get("unread"):
        reasons.append(f"{usage['unread']} replies held no verdict, such as {usage['unread_example']}")
    if usage.get("failed"):
        reasons.append(f"{usage['failed']} questions found no reply ({usage['failure_example']})")
    return "; ".join(reasons) or "the judge's replies could not be read"


def _judge_rankings(plan: Plan, note: Callable[[str], None]) -> bool:
    """Let the endpoint judge held-out rankings and write judge.jsonl; return False where it is not to."""
    path, config = plan.place / JUDGE_FILE, plan.settings
    asked = [config.judge, config.judge_model, config.judging.rankings, plan.sets.rankings]
    key = hashlib.sha256(repr(asked).encode()).hexdigest()
    if read_header(path).get("key") == key:
        return True
    clock = time.perf_counter()
    decided = agreement(config, plan.sets.rankings, note)
    if decided is None:
        return False
    seconds = round(time.perf_counter() - clock, 2)
    write_items(path, decided.items, {"key": key, "judge": decided.judge, "seconds": seconds, "usage": decided.usage})
    return True
