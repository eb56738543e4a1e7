"""Load the grader that `evaluate.grader` names: a convention, or a user's `file.py:function`; grades are from 0 to 1.

The user's function takes either (reply, accepted answers, question) and grades one answer, or a list of Conversations
and grades all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trueup.config.functions import arguments_taken, load_function
from trueup.data.rendering.messages import Conversation, Message
from trueup.errors import ConfigError, TrainingError
from trueup.evaluation.conventions import GRADERS
from trueup.evaluation.rows import Asked
from trueup.models.rewards import checked_reward
from trueup.runtime import Runtime
from trueup.system.text import excerpt

AnswerGrader = Callable[[Sequence[Asked], Sequence[Conversation]], list[float]]
"""Questions and the conversations that answer them -> a grade from 0 to 1 for each."""

MADE_UP_REPLY = "A made-up answer."
_KEY = "evaluate.grader"
_FIX = "\n  fix: return a number from 0 to 1, or True or False"


def open_grader(spec: str, runtime: Runtime) -> AnswerGrader:
    """Return the grader of a name or of `file.py:function`, as a function that grades a list of answers.

    In a run of several processes the first one calls the user's function, and the others receive its grades.

    Raises:
        ConfigError: the file or the function is not there, or it takes neither one argument nor three.
    """
    if spec in GRADERS:
        convention = GRADERS[spec]
        return lambda questions, conversations: [
            float(convention(talk.response, question.answers, question.text))
            for question, talk in zip(questions, conversations, strict=True)
        ]
    function = load_function(spec, _KEY, takes=(1, 3), arguments="reply, accepted, question")
    by_conversation = arguments_taken(function, (1, 3), {}) == 1

    def grades(questions: Sequence[Asked], conversations: Sequence[Conversation]) -> list[float]:
        if by_conversation:
            scores = checked_reward(function, f"{_KEY}: {spec}")(conversations).tolist()
        else:
            scores = [
                _number(function(conversation.response, list(question.answers), question.text), spec, question.id)
                for question, conversation in zip(questions, conversations, strict=True)
            ]
        for question, score in zip(questions, scores, strict=True):
            if not 0 <= score <= 1:
                raise TrainingError(f"{_KEY}: {spec} gave {score} for {question.id}{_FIX}")
        return scores

    return lambda questions, conversations: runtime.from_first(lambda: grades(questions, conversations))


def check_grader(grader: AnswerGrader, questions: Sequence[Asked]) -> None:
    """Try the grader on a made-up reply to the first two questions without choices, before any model loads.

    Raises:
        ConfigError: the grader raises an error, or returns something other than a number from 0 to 1.
    """
    written = [question for question in questions if not question.choices][:2]
    replies = [Conversation((*question.prompt, Message("assistant", MADE_UP_REPLY))) for question in written]
    try:
        grader(written, replies)
    except TrainingError as error:
        problem, _, fix = str(error).partition("\n")
        where = f"{problem} (called with the reply {MADE_UP_REPLY!r} before any model loads)"
        raise ConfigError(f"{where}\n{fix}" if fix else f"{where}{_FIX}") from error


def _number(grade: object, spec: str, question: str) -> float:
    try:
        if isinstance(grade, (str, bytes)):
            raise TypeError
        return float(grade)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, RuntimeError):
        text = excerpt(grade, 80)
        raise TrainingError(f"{_KEY}: {spec} gave {text} for {question}, which is no number{_FIX}") from None
