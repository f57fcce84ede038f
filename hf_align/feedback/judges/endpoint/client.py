"""A client of a chat model behind an endpoint that speaks the OpenAI interface; nothing is asked twice.

complete_all            requests to answers, some at a time (`run_all`)
    _complete           the cache's answer, or a claim on the request
        _ask            attempts until one is answered (`Retries`, `read_failure`)
            _send       one request, by huggingface_hub's InferenceClient
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_align.data.parts import digest
from hf_align.errors import Interrupted, UserError
from hf_align.feedback.judges.endpoint.access import Access, check_no_key
from hf_align.feedback.judges.endpoint.cache import MEMORY, AnswerCache, Claim
from hf_align.feedback.judges.endpoint.completion import ChatRequest, Completion, read_completion
from hf_align.feedback.judges.endpoint.failures import Failure, Unanswered, read_failure, refusal
from hf_align.feedback.judges.endpoint.offline import reaching
from hf_align.feedback.judges.endpoint.retries import Retries
from hf_align.feedback.judges.endpoint.usage import Meter, Prices, Usage
from hf_align.feedback.judges.endpoint.workers import Stopped, run_all

logger = logging.getLogger(__name__)
LOOK = 0.1
"""Seconds between looks at a request that another process or thread has claimed."""
MARGIN = 30.0
"""Seconds that a claim lasts beyond the time-out of its request."""


class EndpointClient:
    """A chat model behind an endpoint, asked through huggingface_hub's `InferenceClient`.

    Every answer is stored at once under a digest of model, endpoint and request, so that it is asked for once: a killed
    run goes on with what it has, and processes that share a cache share its answers. Failed requests are sent again
    after time-outs, broken connections, unreadable answers and the statuses 408, 425, 429 and from 500; others are told
    at once. The key is read from the environment for each request; it isn't kept, shown, logged or stored.

    Args:
        model: Name of the model at the endpoint.
        url: Base URL, such as http://localhost:8000/v1. Default: Hugging Face's inference providers.
        provider: One of these providers. Default: the one that Hugging Face chooses.
        key_variable: Environment variable with the key; see `Access`. Default: HF_TOKEN for Hugging Face,
            OPENAI_API_KEY elsewhere, where it may be missing.
        cache: SQLite file for the answers, or ":memory:". Default: endpoint-answers.sqlite in HF_HOME/hf_align.
        prices: Prices, or a mapping with "prompt" and "completion", of a million tokens. Default: cost isn't counted.
        max_cost: No request is sent once this client's answers cost so much; those under way still come.
        max_requests: Number of requests that this client sends at most, failed ones included.
        concurrency: Requests under way at a time, at most.
        timeout: Seconds without a sign of the endpoint after which a request has failed.
        retries: How often a request is sent and how long is waited between.
        extra_body: Further fields of every request that the endpoint understands.
        clock: Gives seconds since the epoch.
        sleep: Waits for some seconds. Default: one that Ctrl-C and errors of other threads end.

    Raises:
        UserError: A value is impossible, the key is missing, or the cache can't be used.

    Example:
        >>> from hf_align.feedback.judges.endpoint import EndpointClient
        >>> client = EndpointClient("any", url="http://localhost:8000/v1", cache=":memory:")
        >>> client.usage.requests
        0
    """

    def __init__(
        self,
        model: str,
        *,
        url: str | None = None,
        provider: str | None = None,
        key_variable: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        prices: Prices | Mapping[str, float] | None = None,
        max_cost: float | None = None,
        max_requests: int | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: Retries | None = None,
        extra_body: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Any] | None = None,
    ) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise UserError(f"concurrency is {concurrency!r}; give a whole number from 1")
        check_no_key(extra_body or (), "extra_body")
        self.access = Access(model, url, provider, key_variable, timeout)
        self.concurrency, self.retries, self.extra_body = concurrency, retries or Retries(), dict(extra_body or {})
        name = f"{model} at {self.access.place}"
        self.meter = Meter(name, _read_prices(prices), max_cost, max_requests)
        self.cache = AnswerCache(cache, clock)
        self._clock, self._sleep = clock, sleep
        self._pause = 0.0  # when the endpoint may be asked again

    def __repr__(self) -> str:
        return f"EndpointClient({self.access.model!r}, {self.access.place})"

    @property
    def usage(self) -> Usage:
        """Requests, tokens and cost so far."""
        return self.meter.usage()

    def complete(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Completion:
        """Answer of the model to a conversation.

        Args:
            messages: The conversation.
            options: As in `ChatRequest`.

        Raises:
            UserError: As `complete_all`.
        """
        [completion] = self.complete_all([ChatRequest(messages, **options)])
        return completion

    def complete_all(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        """Answers to `[N]` requests, in their order; equal ones are asked once.

        Raises:
            UserError: The endpoint refuses a request (`RequestRefused`), fails for too long, or the budget is used up
                (`Unanswered`). All answers until then are kept.
            Interrupted: After Ctrl-C, likewise.
        """
        by_key = {self.key_of(request): request for request in requests}
        try:
            answers = run_all(self._complete, list(by_key.items()), self.concurrency)
        except Unanswered as error:
            raise Unanswered(f"{error}. {self._kept()}; the same call goes on from there.") from None
        except KeyboardInterrupt:
            raise Interrupted(f"{self._kept()}; the same call goes on from there.") from None
        found = dict(zip(by_key, answers, strict=True))
        return [found[self.key_of(request)] for request in requests]

    def key_of(self, request: ChatRequest) -> str:
        """Digest of everything that determines an answer: model, endpoint and the full request."""
        return digest({**self.identity(), "request": request.payload()})

    def identity(self) -> dict[str, Any]:
        """Whose answers these are, as JSON can write it: model, endpoint and the fields of every request."""
        access = self.access
        where = {"url": (access.url or "").rstrip("/"), "provider": access.provider}
        return {"model": access.model, **where, "extra_body": self.extra_body}

    def recall(self, name: str) -> str | None:
        """What was remembered of this model at this endpoint under a name."""
        return self.cache.get(self._fact(name))

    def remember(self, name: str, text: str) -> None:
        """Keep a fact of this model at this endpoint beside its answers."""
        self.cache.put(self._fact(name), self.access.model, text)

    def close(self) -> None:
        """Close the cache."""
        self.cache.close()

    def _fact(self, name: str) -> str:
        return digest({**self.identity(), "fact": name})

    def _complete(self, item: tuple[str, ChatRequest], stop: threading.Event) -> Completion:
        key, request = item
        while (found := self.cache.take(key, self._claim_seconds())) is Claim.OTHERS:
            stop.wait(LOOK)
            _check(stop)
        if isinstance(found, str):
            completion = Completion.from_json(found)
            self.meter.answered(completion, cached=True)
            return completion
        try:
            completion = self._ask(key, request, stop)
            self.cache.put(key, self.access.model, completion.to_json())
        except BaseException:
            self.cache.release(key)
            raise
        self.meter.answered(completion, cached=False)
        return completion

    def _ask(self, key: str, request: ChatRequest, stop: threading.Event) -> Completion:
        """Send a request until it is answered, refused or given up."""
        for attempt in range(1, self.retries.attempts + 1):
            self._wait(self._pause - self._clock(), key, stop)
            if reason := self.meter.send():
                raise Unanswered(f"{self.access.place}: {reason}")
            answer = self._send(request)
            if isinstance(answer, Completion):
                return answer
            self.meter.failed(answer.kind)
            if not answer.again:
                raise refusal(answer, self.access)
            wait = max(answer.wait or 0.0, self.retries.wait(attempt, key))
            if attempt == self.retries.attempts or wait > self.retries.longest_wait:
                raise Unanswered(self._given_up(answer, attempt))
            logger.warning("%s: %s; asked again in %.3g s", self.access.place, _words(answer), wait)
            if answer.wait:  # asks all of us to wait
                self._pause = max(self._pause, self._clock() + answer.wait)
            self._wait(wait, key, stop)
        raise AssertionError("the last attempt returns or raises")

    def _send(self, request: ChatRequest) -> Completion | Failure:
        try:
            with reaching(self.access.url):
                client = self.access.connect()
                output = client.chat_completion(
                    **request.payload(), model=self.access.model, extra_body=self.extra_body or None
                )
            return read_completion(output, self.access.hide)
        except UserError:
            raise
        except Exception as error:  # connections, responses, and huggingface_hub's reading of them
            return read_failure(error, self.access, self._clock())

    def _wait(self, seconds: float, key: str, stop: threading.Event) -> None:
        if seconds > 0:
            self.cache.extend(key, self._claim_seconds() + seconds)
            (self._sleep or stop.wait)(seconds)
        _check(stop)

    def _claim_seconds(self) -> float:
        return self.access.timeout + MARGIN

    def _given_up(self, failure: Failure, attempts: int) -> str:
        reason = _words(failure) + (f" and asks to wait for {failure.wait:g} s" if failure.wait else "")
        times = "once" if attempts == 1 else f"{attempts} times"
        return f"{self.access.place} failed {times} on the same request: {reason}; try again later"

    def _kept(self) -> str:
        count = self.usage.answers
        where = "" if self.cache.path == MEMORY else f" in {self.cache.path}"
        return f"{count} new answer{'s' * (count != 1)} of this run {'are' if count != 1 else 'is'} kept{where}"


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def _words(failure: Failure) -> str:
    words = [] if failure.status is None else [str(failure.status)]
    return " ".join([*words, *([failure.reason] if failure.reason else [])])


def _read_prices(prices: Prices | Mapping[str, float] | None) -> Prices | None:
    if prices is None or isinstance(prices, Prices):
        return prices
    if not isinstance(prices, Mapping) or set(prices) != {"prompt", "completion"}:
        raise UserError(f"prices is {prices!r}; give prompt and completion, each the price of a million tokens")
    return Prices(**prices)
