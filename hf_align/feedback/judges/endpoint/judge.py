"""A model behind an endpoint as a judge of pairs."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from hf_align.collators.rows import Message, Side
from hf_align.errors import UserError
from hf_align.feedback.judges.endpoint.client import EndpointClient
from hf_align.feedback.judges.endpoint.completion import ChatRequest, Completion
from hf_align.feedback.judges.endpoint.failures import RequestRefused
from hf_align.feedback.judges.endpoint.verdict import THOUGHT, opinion_of
from hf_align.feedback.judges.question import Question
from hf_align.numbers import is_number
from hf_align.rewards.judges import Judgement, Opinion, judge_orders

TOP_LOGPROBS = 5
"""Likely tokens asked for, as many as every endpoint that has log-probs gives."""
REFUSAL = "log-probs are refused"
"""What the client remembers of an endpoint without log-probs."""
ONLY_A_LETTER = "There was no verdict in your answer. Answer with one letter and nothing else: A or B."


class EndpointJudge:
    """A chat model behind an endpoint as a judge of pairs.

    It is asked which of two responses is better. Where the endpoint offers log-probs, its opinion is the probability of
    A against B at the letter of its verdict; elsewhere the verdict in its text, the last one. An answer without a
    verdict is asked for again; where there still is none, the judge has no opinion. Each pair is asked about in both
    orders; where the verdict changes with the order, it is a tie.

    Args:
        model: Name of the model at the endpoint, or an `EndpointClient`.
        prompt: Template of the question; see `hf_align.feedback.judges.question.Question`.
        principle: What to judge by.
        name: Name in reports and stores. Default: the model's.
        max_tokens: Length limit of an answer, its thoughts included; None: the endpoint's.
        temperature: Sampling temperature; None: the endpoint's, for models that take none.
        logprobs: Whether to ask for log-probs. None: yes, unless the endpoint refuses them.
        more_asks: How often an answer without a verdict is asked for again.
        options: Arguments of `EndpointClient`, if `model` is a name.

    Attributes:
        client: The client, whose `usage` has requests, tokens and cost.

    Raises:
        UserError: As `EndpointClient` and `Question`, or a number is out of range.

    Example:
        >>> from hf_align.feedback import EndpointJudge
        >>> judge = EndpointJudge("any", url="http://localhost:8000/v1", cache=":memory:")
        >>> judge.name, judge.compare([], [], [])
        ('any', [])
    """

    def __init__(
        self,
        model: str | EndpointClient,
        *,
        prompt: str | None = None,
        principle: str | None = None,
        name: str | None = None,
        max_tokens: int | None = 512,
        temperature: float | None = 0.0,
        logprobs: bool | None = None,
        more_asks: int = 2,
        **options: Any,
    ) -> None:
        if isinstance(more_asks, bool) or not isinstance(more_asks, int) or more_asks < 0:
            raise UserError(f"more_asks is {more_asks!r}; give a whole number from 0")
        if max_tokens is not None and not (isinstance(max_tokens, int) and is_number(max_tokens) and max_tokens > 0):
            raise UserError(f"max_tokens is {max_tokens!r}; give a whole number from 1, or None for the endpoint's")
        if temperature is not None and not (is_number(temperature) and 0 <= temperature < float("inf")):
            raise UserError(f"temperature is {temperature!r}; give a number from 0, or None for the endpoint's")
        if isinstance(model, EndpointClient) and options:
            raise UserError(f"{', '.join(options)}: the client that is given has its own; leave out one of them")
        self.question = Question(prompt, principle)
        self.client = model if isinstance(model, EndpointClient) else EndpointClient(model, **options)
        self.name = name or self.client.access.model
        self.max_tokens = cast(int | None, max_tokens)
        self.temperature, self.more_asks = temperature, more_asks
        self._logprobs, self._has_logprobs = logprobs, False
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def with_principle(self, principle: str, name: str | None = None, *, prompt: str | None = None) -> EndpointJudge:
        """The same client as a judge by a principle.

        Args:
            principle: What to judge by.
            name: Its name. Default: this judge's.
            prompt: Template of the question with the field {principle}. Default: as in the constructor.

        Raises:
            UserError: As the constructor.
        """
        other = copy.copy(self)
        other.question, other.name = Question(prompt, principle), name or self.name
        other._counts, other._lock = Counter(), threading.Lock()
        return other

    def compare(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Judgement]:
        """Judge `[N]` pairs of responses to `[N]` prompts, texts or messages.

        Raises:
            UserError: The endpoint refuses a request, fails for too long, or the budget is used up; answers are kept.
            Interrupted: After Ctrl-C, likewise.
        """
        return judge_orders(self._ask, prompts, firsts, seconds)

    def settings(self) -> dict[str, Any]:
        """What determines its answers to a question, as JSON can write it: model, endpoint and how it is asked."""
        how = {"temperature": self.temperature, "max_tokens": self.max_tokens, "logprobs": self._logprobs}
        return {**self.client.identity(), **how, "more_asks": self.more_asks}

    def report(self) -> dict[str, Any]:
        """Counts of what was asked in this process, answers from the cache included.

        Returns:
            `asked` (each pair counts twice, once an order), `by_logprobs`, `asked_again` (questions whose first answer
            had no verdict), `no_opinion` (those without one in the end), and `usage`, the client's figures.
        """
        names = ("asked", "by_logprobs", "asked_again", "no_opinion")
        return {**{name: self._counts[name] for name in names}, "usage": vars(self.client.usage)}

    def _ask(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Opinion]:
        questions = [self.question.text(*pair) for pair in zip(prompts, firsts, seconds, strict=True)]
        conversations = [[{"role": "user", "content": question}] for question in questions]
        opinions: list[Opinion] = [None] * len(questions)
        left = list(range(len(questions)))
        counts = Counter(asked=len(left))
        for number in range(self.more_asks + 1):
            if not left:
                break
            answers = self._complete([conversations[index] for index in left])
            for index, answer in zip(left, answers, strict=True):
                opinions[index], by_logprobs = opinion_of(answer)
                counts["by_logprobs"] += by_logprobs
                conversations[index] = _again(conversations[index], answer)
            left = [index for index in left if opinions[index] is None]
            counts["asked_again"] += len(left) if number == 0 and self.more_asks else 0
        counts["no_opinion"] = len(left)
        with self._lock:
            self._counts.update(counts)
        return opinions

    def _complete(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        """Answers, with log-probs if the endpoint has them: that is tried with one request before the others."""
        refused = self._logprobs is None and self.client.recall(REFUSAL) is not None
        top = None if self._logprobs is False or refused else TOP_LOGPROBS
        requests = [
            ChatRequest(messages, max_tokens=self.max_tokens, temperature=self.temperature, top_logprobs=top)
            for messages in conversations
        ]
        if top is None or self._logprobs or self._has_logprobs:
            return self.client.complete_all(requests)
        try:
            first = self.client.complete_all(requests[:1])
        except RequestRefused as error:
            if "logprob" not in error.reason.lower():
                raise
            self.client.remember(REFUSAL, error.reason)
            return self._complete(conversations)
        self._has_logprobs = True
        return first + self.client.complete_all(requests[1:])


def _again(conversation: list[Message], answer: Completion) -> list[Message]:
    """The conversation that goes on after an answer without a verdict."""
    said = THOUGHT.sub("", answer.text).strip()
    if said:
        turns = [("assistant", said), ("user", ONLY_A_LETTER)]
        return [*conversation, *({"role": role, "content": content} for role, content in turns)]
    *before, last = conversation  # many templates refuse a turn without text, and two of the user's in a row
    return [*before, {**last, "content": f"{last['content']}\n\n{ONLY_A_LETTER}"}]
