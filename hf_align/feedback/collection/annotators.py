"""Annotators that are models: functions, judges and rewards, asked about tasks of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hf_align.collators.rows import text_of
from hf_align.data.parts import digest
from hf_align.errors import UserError
from hf_align.feedback.judges.reward import RewardJudge
from hf_align.feedback.opinions import read_preference
from hf_align.feedback.records import Annotator, Position, Prompt, Response, Task
from hf_align.feedback.store import PreferenceStore
from hf_align.feedback.store.queue import draw
from hf_align.rewards.judges import Judge, Opinion

BATCH = 32
"""Tasks that a judge compares at a time."""


@dataclass(frozen=True)
class Question:
    """A task with its texts."""

    task: Task
    prompt: Prompt
    first: Response
    second: Response


@dataclass(frozen=True)
class Reply:
    """A model's answer to a question.

    Attributes:
        preference: From 0 (second) to 1 (first); None: no opinion.
        left: Response that was named first; None if both orders were asked, or the order can't matter.
        orders: Opinions in both orders, as in `Judgement`; None if one was asked, or the order can't matter.
    """

    preference: float | None
    left: Position | None = None
    orders: tuple[Opinion, Opinion] | None = None


class ModelAnnotator(Protocol):
    """A model that answers: `JudgeAnnotator`, `RewardAnnotator` or `FunctionAnnotator`."""

    @property
    def name(self) -> str:
        """Name in the store."""
        ...

    @property
    def record(self) -> Annotator:
        """Its record in the store."""
        ...

    @property
    def batch(self) -> int:
        """Questions asked at a time; their answers are stored once all of them are there."""
        ...

    def reply(self, questions: Sequence[Question]) -> list[Reply]:
        """Answer questions, one reply for each."""
        ...


@dataclass(frozen=True)
class FunctionAnnotator:
    """A function as an annotator, such as a call of a judge.

    Each task is asked in one order, drawn by a hash of name and task, and the answer is turned back.

    Args:
        name: Name in the store.
        function: `f(prompt, first, second)` of texts, or messages where the prompts are messages. It returns the
            probability that the first is better, "first", "second" or "tie", or None for no opinion.
        group: As in `Annotator`.
        domains: As in `Annotator`.

    Example:
        >>> from hf_align.feedback import FunctionAnnotator
        >>> shorter = FunctionAnnotator("shorter", lambda prompt, first, second: float(len(first) < len(second)))
        >>> shorter.record.kind
        'model'
    """

    name: str
    function: Callable[[Any, Any, Any], Any]
    group: str | None = None
    domains: tuple[str, ...] = ()

    @property
    def record(self) -> Annotator:
        """Its record in the store."""
        return Annotator(self.name, "model", self.group, tuple(self.domains))

    @property
    def batch(self) -> int:
        """One: a call may be dear, so that each answer is stored at once."""
        return 1

    def reply(self, questions: Sequence[Question]) -> list[Reply]:
        """Answer questions one by one.

        Raises:
            UserError: The function returned something else than a preference.
        """
        return [self._reply(question) for question in questions]

    def _reply(self, question: Question) -> Reply:
        left: Position = "first" if draw("order", self.name, question.task.id) < 0.5 else "second"
        shown = [question.first.content, question.second.content]
        if left == "second":
            shown.reverse()
        preference = read_preference(self.function(question.prompt.content, *shown))
        return Reply(preference if preference is None or left == "first" else 1 - preference, left)


class JudgeAnnotator:
    """A judge as an annotator.

    Where the judge is asked in both orders, its answer has no left side; what it said in each is kept with the answer,
    as `details["orders"]`: the probabilities that the task's first response is better, with it shown first and second.

    Args:
        name: Name in the store.
        judge: Any `hf_align.rewards.Judge`, such as a `LanguageModelJudge`.
        group: As in `Annotator`.
        domains: As in `Annotator`.

    Attributes:
        batch: Questions asked at a time.

    Raises:
        UserError: It is no judge.

    Example:
        >>> from hf_align.feedback import FunctionJudge, JudgeAnnotator
        >>> shorter = FunctionJudge(lambda prompt, first, second: float(len(first) < len(second)))
        >>> JudgeAnnotator("shorter", shorter).record.kind
        'model'
    """

    batch: int = BATCH

    def __init__(self, name: str, judge: Judge, *, group: str | None = None, domains: Sequence[str] = ()) -> None:
        if not callable(getattr(judge, "compare", None)):
            raise UserError(f"annotators: {judge!r} is no judge; give an object with compare(prompts, firsts, seconds)")
        self.name, self.judge = name, judge
        self.record = Annotator(name, "model", group, tuple(domains))

    def reply(self, questions: Sequence[Question]) -> list[Reply]:
        """Answer questions, all of them in one call of the judge.

        Raises:
            UserError: The judge fails.
        """
        judgements = self.judge.compare(
            [question.prompt.content for question in questions],
            [question.first.content for question in questions],
            [question.second.content for question in questions],
        )
        return [Reply(judgement.preference, orders=judgement.orders) for judgement in judgements]


class RewardAnnotator(JudgeAnnotator):
    """A reward as an annotator: it prefers the response with the higher score (`RewardJudge`).

    Args:
        name: Name in the store.
        reward: Anything that `hf_align.rewards.as_reward` takes: a reward model, an ensemble, a function, a weighted
            list of them.
        tie_band: None: the answer is the probability sigmoid(score_first - score_second) of Bradley and Terry; of a
            single reward model the difference is first brought to log odds (`RewardModel.log_odds`). A number: the
            answer is 1 or 0, and a tie where the scores differ by no more than that.
        group: As in `Annotator`.
        domains: As in `Annotator`.

    Raises:
        UserError: It is no reward, or `tie_band` is negative.

    Example:
        >>> from hf_align.feedback import RewardAnnotator
        >>> def brevity(prompts, responses):
        ...     return [-float(len(response)) for response in responses]
        >>> RewardAnnotator("brevity", brevity, tie_band=2).record.name
        'brevity'
    """

    def __init__(
        self,
        name: str,
        reward: Any,
        *,
        tie_band: float | None = None,
        group: str | None = None,
        domains: Sequence[str] = (),
    ) -> None:
        super().__init__(name, RewardJudge(reward, name, tie_band=tie_band), group=group, domains=domains)


def ask_model(
    store: PreferenceStore, model: ModelAnnotator, questions: Sequence[Question], undos: Mapping[tuple[str, str], int]
) -> Iterator[int]:
    """Ask a model and store its answers, batch by batch.

    An answer's id is a digest of task, annotator and attempt, so that asking again adds nothing.

    Args:
        store: The store.
        model: The model.
        questions: What to ask.
        undos: How often answers were undone, by task's id and annotator.

    Yields:
        The number of questions done, after each batch.

    Raises:
        UserError: The model fails; the message names the task. All answers before it are stored.
    """
    for start in range(0, len(questions), model.batch):
        batch = questions[start : start + model.batch]
        try:
            replies = _checked_replies(model, batch)
        except Exception:  # any error of the user's function: find its task, and keep what stands before it
            for question in batch:
                _store(store, model, question, _only_reply(model, question), undos)
        else:
            for question, reply in zip(batch, replies, strict=True):
                _store(store, model, question, reply, undos)
        yield start + len(batch)


def _checked_replies(model: ModelAnnotator, questions: Sequence[Question]) -> list[Reply]:
    replies = model.reply(questions)
    if len(replies) != len(questions):
        raise UserError(f"it gave {len(replies)} answers to {len(questions)} questions")
    return replies


def _only_reply(model: ModelAnnotator, question: Question) -> Reply:
    try:
        [reply] = _checked_replies(model, [question])
    except Exception as error:  # any error of the user's function
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"annotators: {model.name!r} failed on task {question.task.id} (prompt {_shown(question.prompt)!r}): "
            f"{reason.rstrip('.')}. Its earlier answers are stored, and the same call goes on from there."
        ) from error
    return reply


def _shown(prompt: Prompt) -> str:
    text = " ".join(text_of(prompt.content).split())
    return text if len(text) <= 60 else f"{text[:60]}…"


def _store(
    store: PreferenceStore,
    model: ModelAnnotator,
    question: Question,
    reply: Reply,
    undos: Mapping[tuple[str, str], int],
) -> None:
    attempt = undos.get((question.task.id, model.name), 0)
    id = digest([question.task.id, model.name, attempt])
    details = None if reply.orders is None else {"orders": list(reply.orders)}
    store.record(question.task.id, model.name, reply.preference, id=id, left=reply.left, details=details)
