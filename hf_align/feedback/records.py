"""What a preference store holds: prompts, responses, tasks, annotators, leases and answers.

A prompt's, a response's and a task's id is a digest of its content, so that adding one again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from hf_align.collators.rows import Side
from hf_align.data.parts import digest
from hf_align.errors import UserError

Position = Literal["first", "second"]
Choice = Literal["left", "right", "tie"]
AnnotatorKind = Literal["person", "model", "adjudicator"]
EventKind = Literal["answer", "skip", "undo"]
FIRST, TIE, SECOND = 1.0, 0.5, 0.0
"""Preferences: the first response is better, neither, the second."""


@dataclass(frozen=True)
class Prompt:
    """A prompt of a pool.

    Attributes:
        content: Text or messages.
        pool: What it was chosen for, such as "high_value" or "adversarial".
        domain: Subject, by which annotators are chosen.
        columns: Further columns of its row, which an export brings back.

    Example:
        >>> from hf_align.feedback import Prompt
        >>> Prompt("Name a fruit.", pool="high_value", domain="food").id == Prompt("Name a fruit.").id
        True
    """

    content: Side
    pool: str = "random"
    domain: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Digest of the content."""
        return digest(["prompt", self.content])


@dataclass(frozen=True)
class Response:
    """A response to a prompt.

    Attributes:
        prompt_id: Its prompt.
        content: Text, or messages where the prompt is messages.
        source: Who wrote it: a model's name, or any other.
        settings: How it was sampled, such as temperature and seed.

    Example:
        >>> from hf_align.feedback import Prompt, Response
        >>> prompt = Prompt("Name a fruit.")
        >>> Response(prompt.id, "Apple.", "model-a").id == Response(prompt.id, "Apple.", "model-b").id
        True
    """

    prompt_id: str
    content: Side
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Digest of prompt and content: the same text from two models is one response."""
        return digest(["response", self.prompt_id, self.content])


@dataclass(frozen=True)
class Task:
    """Two responses to compare.

    The two stand in the order of their ids, so that the position of either says nothing; use `Task.of`.

    Attributes:
        prompt_id: Their prompt.
        first_id: The one response.
        second_id: The other.
        wanted: Answers wanted, of different annotators.
        gold: Known preference, from 0 (second) to 1 (first), of a question that checks annotators; None otherwise.
        domain: As the prompt's.
        strategy: How the pair was made, such as "sources" or "all".
        choice: How the pair was chosen among others: the method, its score and the round.
        priority: Tasks with higher priority are given out first.

    Example:
        >>> from hf_align.feedback import Prompt, Response, Task
        >>> prompt = Prompt("Name a fruit.")
        >>> apple, stone = Response(prompt.id, "Apple.", "a"), Response(prompt.id, "Stone.", "b")
        >>> Task.of(apple, stone, wanted=5).id == Task.of(stone, apple).id
        True
    """

    prompt_id: str
    first_id: str
    second_id: str
    wanted: int = 3
    gold: float | None = None
    domain: str | None = None
    strategy: str = "all"
    choice: Mapping[str, Any] = field(default_factory=dict)
    priority: float = 0.0

    @classmethod
    def of(cls, one: Response, other: Response, *, gold_best: str | None = None, **fields: Any) -> Task:
        """The task that compares two responses to one prompt.

        Args:
            one: A response.
            other: Another response to the same prompt.
            gold_best: Id of the response known to be better, for a gold question; "tie" if neither is.
            fields: Of `Task`.
        """
        if one.prompt_id != other.prompt_id or one.id == other.id:
            raise UserError("a task compares two different responses to one prompt")
        first, second = sorted((one.id, other.id))
        if gold_best is not None:
            if gold_best not in (first, second, "tie"):
                raise UserError(f"gold_best is {gold_best!r}; give the id of one of the two responses, or 'tie'")
            fields["gold"] = TIE if gold_best == "tie" else FIRST if gold_best == first else SECOND
        return cls(one.prompt_id, first, second, **fields)

    @cached_property
    def id(self) -> str:
        """Digest of the prompt and the two responses."""
        return digest(["task", self.prompt_id, self.first_id, self.second_id])


@dataclass(frozen=True)
class Annotator:
    """Somebody, or something, that answers.

    Attributes:
        name: Name, unique in the store.
        kind: "person", "model" (a reward model, a judge or a function) or "adjudicator": a person who decides open
            tasks and gets no others.
        group: Group whose agreement is reported apart.
        domains: Subjects that it answers; none: all.
        right: Earlier gold questions answered right, its track record.
        wrong: Earlier gold questions answered wrong.

    Example:
        >>> from hf_align.feedback import Annotator, PreferenceStore
        >>> store = PreferenceStore("sqlite://")
        >>> store.add(annotators=[Annotator("anna", group="teachers", domains=("law", "code"), right=18, wrong=2)])
        >>> store.annotators()["anna"].domains
        ('law', 'code')
    """

    name: str
    kind: AnnotatorKind = "person"
    group: str | None = None
    domains: tuple[str, ...] = ()
    right: float = 0.0
    wrong: float = 0.0


@dataclass(frozen=True)
class Lease:
    """A task given to an annotator for some time.

    Attributes:
        id: Names the showing; an answer under it is taken once.
        task: The task.
        annotator: Who has it.
        left: Response shown on the left, drawn at random.
        leased_at: Time of the showing, in seconds since 1970.
        expires_at: When the task may go to somebody else. A later answer still counts.

    Example:
        >>> from hf_align.feedback import Lease, Prompt, Response, Task
        >>> prompt = Prompt("Name a fruit.")
        >>> task = Task.of(Response(prompt.id, "Apple.", "a"), Response(prompt.id, "Stone.", "b"))
        >>> Lease("showing-1", task, "anna", "second", leased_at=0.0, expires_at=1800.0).preference("left")
        0.0
    """

    id: str
    task: Task
    annotator: str
    left: Position
    leased_at: float
    expires_at: float

    def preference(self, choice: Choice) -> float:
        """Preference that a choice between the two sides shown means: 1 for the task's first response, 0, or .5."""
        if choice == "tie":
            return TIE
        return FIRST if (choice == "left") == (self.left == "first") else SECOND


@dataclass(frozen=True)
class Showing:
    """What an annotator sees of a lease.

    Attributes:
        lease: The lease.
        prompt: The prompt.
        left: Response on the left.
        right: Response on the right.

    Example:
        >>> from hf_align.feedback import PreferenceStore, Prompt, Response, Task
        >>> store = PreferenceStore("sqlite://")
        >>> prompt = Prompt("Name a fruit.")
        >>> one, other = Response(prompt.id, "Apple.", "a"), Response(prompt.id, "Stone.", "b")
        >>> store.add(prompts=[prompt], responses=[one, other], tasks=[Task.of(one, other)])
        >>> showing = store.showing(store.lease("anna"))
        >>> sorted([showing.left.content, showing.right.content])
        ['Apple.', 'Stone.']
    """

    lease: Lease
    prompt: Prompt
    left: Response
    right: Response


@dataclass(frozen=True)
class Progress:
    """How far an annotator is.

    Attributes:
        answered: Answers of theirs that stand.
        skipped: Tasks that they skipped.
        left: Tasks that they may still be given, the one they hold included. Gold questions are not counted, so that
            the number tells nobody which tasks they are.

    Example:
        >>> from hf_align.feedback import Progress
        >>> Progress(answered=12, skipped=1, left=7).total
        20
    """

    answered: int
    skipped: int
    left: int

    @property
    def total(self) -> int:
        """All three together."""
        return self.answered + self.skipped + self.left


@dataclass(frozen=True, slots=True)  # a store has many: slots halve the time of reading them
class Answer:
    """An event of an annotator on a task. Events are added and never changed.

    Attributes:
        id: Made by the client, so that a repeated request adds nothing.
        task_id: The task.
        annotator: Who answered.
        kind: "answer", "skip" (no opinion: the task isn't shown to them again) or "undo" (takes the last one back).
        preference: 1 for the first response, 0 for the second, .5 for a tie, or a number between; None unless an
            answer.
        left: Response that was shown on the left; None if nothing was shown, as to a model.
        confidence: From 0 to 1, if given.
        reason: Text, if given.
        shown_at: When the task was given out, in seconds since 1970.
        answered_at: When the answer came.
        attempt: 0, and one more after each undo of this annotator on this task.
        lease_id: The showing.
        details: Anything else: version of the page, user agent.

    Example:
        >>> from hf_align.feedback import Answer
        >>> Answer("click-1", "task", "anna", "answer", 1.0, "first", 0.9, None, shown_at=5.0, answered_at=17.5).seconds
        12.5
    """

    id: str
    task_id: str
    annotator: str
    kind: EventKind
    preference: float | None
    left: Position | None
    confidence: float | None
    reason: str | None
    shown_at: float | None
    answered_at: float
    attempt: int = 0
    lease_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """Time taken."""
        return None if self.shown_at is None else self.answered_at - self.shown_at
