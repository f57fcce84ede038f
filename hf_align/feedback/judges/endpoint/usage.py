"""What requests took: tokens, cost, and a budget that stops them."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from hf_align.errors import UserError
from hf_align.feedback.judges.endpoint.completion import Completion
from hf_align.numbers import is_number

_METERS: list[Meter] = []
"""Those of this process that `untold_usage` hasn't told yet."""


@dataclass(frozen=True)
class Prices:
    """Prices of an endpoint, in any currency.

    Attributes:
        prompt: Of a million tokens that it reads.
        completion: Of a million tokens that it writes.

    Raises:
        UserError: A price is no number from 0.

    Example:
        >>> from hf_align.feedback.judges.endpoint import Prices
        >>> Prices(prompt=0.5, completion=2.0).cost(2_000_000, 500_000)
        2.0
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        for name, price in vars(self).items():
            if not is_number(price) or not 0 <= price < float("inf"):
                raise UserError(f"prices: {name} is {price!r}; give the price of a million tokens")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost of some tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True)
class Usage:
    """What a client took so far.

    Attributes:
        requests: Requests sent, with those that failed.
        answers: Answers of the endpoint.
        cached: Requests that were answered from the cache; they cost nothing again.
        prompt_tokens: Tokens that the endpoint read.
        completion_tokens: Tokens that it wrote.
        cached_prompt_tokens: Tokens of the cached answers, counted when they were asked for.
        cached_completion_tokens: Likewise.
        uncounted: Answers for which the endpoint told no numbers of tokens; they are missing in tokens and cost.
        failures: Failed requests by kind: a status, "timeout", "connection", "malformed", "other".
        cost: Cost of the tokens; None without prices.
    """

    requests: int = 0
    answers: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    cached_completion_tokens: int = 0
    uncounted: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    cost: float | None = None

    def __str__(self) -> str:
        parts = [f"{self.requests:,} requests"]
        if self.failures:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.failures.items())
            parts.append(f"{sum(self.failures.values()):,} failed ({kinds})")
        parts += [f"{self.answers:,} answers", f"{self.cached:,} from the cache"]
        parts.append(f"{self.prompt_tokens:,} tokens read, {self.completion_tokens:,} written")
        if self.uncounted:
            parts.append(f"{self.uncounted:,} answers without numbers of tokens")
        return ", ".join([*parts, *([] if self.cost is None else [f"cost {self.cost:.6g}"])])


class Meter:
    """Counts what a client's threads take, and stops them at its budget.

    Args:
        name: What `untold_usage` calls the client.
        prices: Prices, if cost is counted.
        max_cost: No request is sent once the answers cost this much.
        max_requests: No further request is sent after so many.

    Raises:
        UserError: A limit is out of range, or there is one on cost and no prices.
    """

    def __init__(self, name: str, prices: Prices | None, max_cost: float | None, max_requests: int | None) -> None:
        if max_cost is not None and not (is_number(max_cost) and max_cost > 0):
            raise UserError(f"max_cost is {max_cost!r}; give a number above 0, or None")
        whole = isinstance(max_requests, int) and not isinstance(max_requests, bool) and max_requests >= 1
        if max_requests is not None and not whole:
            raise UserError(f"max_requests is {max_requests!r}; give a whole number from 1, or None")
        if max_cost is not None and prices is None:
            raise UserError("max_cost needs prices, the prices of a million tokens read and written")
        self.name, self.prices, self.max_cost, self.max_requests = name, prices, max_cost, max_requests
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        _METERS.append(self)

    def usage(self) -> Usage:
        """The counts."""
        with self._lock:
            return Usage(**self._counts, failures=dict(sorted(self._failures.items())), cost=self._cost())

    def send(self) -> str | None:
        """Count a request before it is sent, or say why the budget forbids it."""
        with self._lock:
            cost = self._cost()
            if self.max_requests is not None and self._counts["requests"] >= self.max_requests:
                return f"the budget of {self.max_requests} requests (max_requests) is used up"
            if self.max_cost is not None and cost is not None and cost >= self.max_cost:
                return f"the budget of {self.max_cost:g} (max_cost) is used up: answers cost {cost:.6g}"
            self._counts["requests"] += 1
            return None

    def answered(self, completion: Completion, *, cached: bool) -> None:
        """Count an answer, of the endpoint or of the cache."""
        prefix = "cached_" if cached else ""
        known = completion.prompt_tokens is not None and completion.completion_tokens is not None
        with self._lock:
            self._counts["cached" if cached else "answers"] += 1
            self._counts["uncounted"] += not known and not cached
            self._counts[f"{prefix}prompt_tokens"] += completion.prompt_tokens or 0
            self._counts[f"{prefix}completion_tokens"] += completion.completion_tokens or 0

    def failed(self, kind: str) -> None:
        """Count a failed request."""
        with self._lock:
            self._failures[kind] += 1

    def _cost(self) -> float | None:
        tokens = self._counts["prompt_tokens"], self._counts["completion_tokens"]
        return None if self.prices is None else self.prices.cost(*tokens)


def untold_usage() -> list[str]:
    """A line for each client of this process that asked anything, once: it is paid for, whatever became of the run."""
    meters, _METERS[:] = _METERS[:], []
    usages = [(meter.name, meter.usage()) for meter in meters]
    return [f"{name}: {usage}" for name, usage in usages if usage.requests or usage.cached]
