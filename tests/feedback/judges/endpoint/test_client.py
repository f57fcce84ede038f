"""Endpoints that fail, and clients that ask nothing twice. All tests run in huggingface_hub's offline mode."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import get_session

from hf_align.errors import Interrupted, UserError
from hf_align.feedback.judges.endpoint import ChatRequest, Completion, EndpointClient, Prices, Retries
from tests.feedback.judges.endpoint.stand_in import COMPLETION_TOKENS, PROMPT_TOKENS, Clock, StandIn

KEY = "sk-planted-0123456789abcdef"


def client_of(stand_in: StandIn, cache: str | Path = ":memory:", **options: Any) -> EndpointClient:
    options = {"concurrency": 1, "timeout": 300.0, **options}
    return EndpointClient("judge-1", url=stand_in.url, cache=cache, **options)


def request(text: str, **options: Any) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], **options)


def echo(body: dict[str, Any]) -> str:
    return f"re:{body['messages'][-1]['content']}"


def test_every_passing_failure_is_asked_again_and_an_answer_never(stand_in: StandIn, tmp_path: Path):
    stand_in.answer, clock = echo, Clock()
    stand_in.script.extend(["hang", 429, 500, 503, "page", "list", "empty", "cut", "kill", 408])

    def sleep(seconds: float) -> None:
        client.access = replace(client.access, timeout=300.0)  # the first request alone is to be given up
        clock.sleep(seconds)

    client = client_of(stand_in, tmp_path / "a", timeout=1.0, retries=Retries(attempts=11), clock=clock, sleep=sleep)
    messages = [{"role": "user", "content": "hello"}]
    assert client.complete(messages).text == "re:hello"
    kinds = {"408": 1, "429": 1, "500": 1, "503": 1, "connection": 1, "malformed": 4, "timeout": 1}
    assert client.usage.failures == kinds and client.usage.requests == 11 and client.usage.answers == 1
    assert all(before / 2 <= wait <= before for wait, before in zip(clock.slept, [1, 2, 4, 8, 16], strict=False))
    assert client.complete(messages) == client_of(stand_in, tmp_path / "a").complete(messages)
    assert set(stand_in.answered.values()) == {1} and stand_in.asked.total() == 11


def test_retry_after_is_honoured_in_seconds_and_as_a_date_and_too_long_ones_are_told(stand_in: StandIn):
    for wait, header in ((7.0, "7"), (9.0, None)):
        clock = Clock()
        stand_in.script.append(429)
        date = format_datetime(datetime.fromtimestamp(clock.now + 9, UTC), usegmt=True)
        stand_in.headers = {"retry_after": header or date}
        client_of(stand_in, clock=clock, sleep=clock.sleep).complete([{"role": "user", "content": "hello"}])
        assert clock.slept == [wait]
    stand_in.script.append(429)
    stand_in.headers = {"retry_after": "3600"}
    with pytest.raises(UserError, match="failed once on the same request: 429 Not today and asks to wait for 3600 s"):
        client_of(stand_in, clock=clock, sleep=clock.sleep).complete([{"role": "user", "content": "hello"}])
    assert len(clock.slept) == 1


def test_what_fails_for_ever_is_given_up_after_the_last_attempt(stand_in: StandIn):
    clock = Clock()
    stand_in.script.extend([500] * 9)
    client = client_of(stand_in, retries=Retries(attempts=3), clock=clock, sleep=clock.sleep)
    with pytest.raises(
        UserError, match=r"failed 3 times on the same request: 500 Not today; try again later\. 0 new answers"
    ):
        client.complete([{"role": "user", "content": "hello"}])
    assert stand_in.asked.total() == 3 and len(clock.slept) == 2


def test_an_error_with_status_200_is_told_in_its_own_words(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stand_in, "_completion", lambda request: {"error": {"message": "The model is overloaded"}})
    client = client_of(stand_in, retries=Retries(attempts=1))
    with pytest.raises(UserError, match=r"the answer can't be read \(the answer has no choices: The model is over"):
        client.complete([{"role": "user", "content": "hello"}])


@pytest.mark.parametrize(
    ("status", "fix"),
    [(401, "check the key in OPENAI_API_KEY"), (404, "check the url and the model's name, 'judge-1'"), (400, "")],
)
def test_a_refusal_is_told_at_once(stand_in: StandIn, status: int, fix: str):
    stand_in.script.append(status)
    with pytest.raises(UserError, match=rf"refuses the request with {status} \(Not today\).*{fix}"):
        client_of(stand_in).complete([{"role": "user", "content": "hello"}])
    assert stand_in.asked.total() == 1


def test_a_key_is_sent_and_stands_nowhere(
    stand_in: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}\n")
    clock, shown = Clock(), []
    client = client_of(
        stand_in, tmp_path / "a", key_variable="JUDGE_KEY", clock=clock, sleep=clock.sleep, retries=Retries(2)
    )
    for status, before in ((401, 0), (500, 180), (503, 0), (418, 180)):  # longer messages are cut, within the key
        stand_in.said = {"error": {"message": "x" * before + f" {KEY} is wrong"}}
        stand_in.script.extend([status, status])
        with pytest.raises(UserError) as caught:
            client.complete([{"role": "user", "content": "hello"}])
        shown.append("".join(traceback.format_exception(caught.value)))
        stand_in.script.clear()
    stand_in.answer = lambda body: f"Your key is {KEY}."
    answer = client.complete([{"role": "user", "content": "hello"}])
    assert answer.text == "Your key is ***." and set(stand_in.keys) == {f"Bearer {KEY}"}
    shown += [repr(client), repr(vars(client)), repr(client.access), repr(client.usage), repr(answer)]
    shown += [caplog.text, *map(str, capfd.readouterr())]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"Your key is ***" in stored
    for part in (KEY, KEY[:12]):
        assert part.encode() not in stored and not any(part in text for text in shown)


def test_a_token_of_hugging_face_goes_to_no_other_server(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    client_of(stand_in).complete([{"role": "user", "content": "hello"}])
    client_of(stand_in, key_variable="HF_TOKEN").complete([{"role": "user", "content": "hello"}])
    assert stand_in.keys == [None, "Bearer hf_planted"]


def test_a_run_that_broke_off_goes_on_with_what_it_has(stand_in: StandIn, tmp_path: Path):
    stand_in.answer = echo
    requests = [request(str(number)) for number in range(6)]
    stand_in.script.extend([None, None, None, 401])
    with pytest.raises(UserError, match="401"):
        client_of(stand_in, tmp_path / "a").complete_all(requests)
    client = client_of(stand_in, tmp_path / "a")
    assert [answer.text for answer in client.complete_all(requests)] == [f"re:{number}" for number in range(6)]
    assert set(stand_in.answered.values()) == {1} and (client.usage.cached, client.usage.answers) == (3, 3)


def test_answers_keep_the_order_of_their_requests_and_few_are_under_way(stand_in: StandIn):
    begun = {str(number): threading.Event() for number in range(16)}

    def late(body: dict[str, Any]) -> str:
        number = body["messages"][0]["content"]
        begun[number].set()
        if int(number) % 4 == 0:  # is answered after the next one has come
            begun[str(int(number) + 1)].wait(60)
        return echo(body)

    stand_in.answer = late
    client = client_of(stand_in, concurrency=3)
    numbers = [*range(16), 3, 3]
    answers = client.complete_all([request(str(number)) for number in numbers])
    assert [answer.text for answer in answers] == [f"re:{number}" for number in numbers]
    assert 1 < stand_in.most <= 3 and stand_in.asked.total() == 16


def test_two_runs_on_one_cache_at_once_ask_everything_once(stand_in: StandIn, tmp_path: Path):
    def late(body: dict[str, Any]) -> str:
        time.sleep(0.005)
        return echo(body)

    stand_in.answer = late
    requests = [request(str(number)) for number in range(20)]
    clients = [client_of(stand_in, tmp_path / "a", concurrency=4) for _ in range(2)]
    answers: list[list[Completion]] = []
    threads = [
        threading.Thread(target=lambda client=client: answers.append(client.complete_all(requests)))
        for client in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers[0] == answers[1] and stand_in.asked.total() == 20
    assert sum(client.usage.answers for client in clients) == 20 == sum(client.usage.cached for client in clients)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as a terminal's program has it: one that a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_at_once_and_keeps_what_was_answered(stand_in: StandIn, tmp_path: Path):
    release = threading.Event()

    def interrupt(body: dict[str, Any]) -> str:
        if body["messages"][0]["content"] == "4":
            while client.usage.answers < 4:
                time.sleep(0.005)
            if not release.is_set():
                os.kill(os.getpid(), signal.SIGINT)
        if int(body["messages"][0]["content"]) >= 4:
            release.wait(60)
        return echo(body)

    stand_in.answer = interrupt
    requests = [request(str(number)) for number in range(8)]
    client = client_of(stand_in, tmp_path / "a", concurrency=2)
    with pytest.raises(Interrupted, match=r"4 new answers of this run are kept in .*; the same call goes on"):
        client.complete_all(requests)
    assert stand_in.answered.total() == 4  # it didn't wait for those under way,
    release.set()  # which are answered and kept all the same
    assert [answer.text for answer in client.complete_all(requests)] == [f"re:{number}" for number in range(8)]
    assert set(stand_in.answered.values()) == {1} and stand_in.asked.total() == 8


def test_a_budget_stops_before_it_is_exceeded_and_keeps_all_answers(stand_in: StandIn, tmp_path: Path):
    requests = [request(str(number)) for number in range(8)]
    with pytest.raises(
        UserError, match=r"budget of 3 requests \(max_requests\) is used up\. 3 new answers .* are kept in"
    ):
        client_of(stand_in, tmp_path / "a", max_requests=3, concurrency=4).complete_all(requests)
    assert stand_in.asked.total() == 3
    prices = {"prompt": 10_000.0, "completion": 100_000.0}  # 1 + 1 an answer
    costly = client_of(stand_in, tmp_path / "a", prices=prices, max_cost=3.5)
    with pytest.raises(UserError, match=r"budget of 3\.5 \(max_cost\) is used up: answers cost 4"):
        costly.complete_all(requests)
    assert stand_in.asked.total() == 5 and costly.usage.cost == pytest.approx(4.0) and costly.usage.cached == 3


def test_tokens_and_cost_are_those_of_new_answers_and_cached_ones_are_told(stand_in: StandIn, tmp_path: Path):
    requests = [request(str(number)) for number in range(3)]
    first = client_of(stand_in, tmp_path / "a", prices=Prices(0.5, 2.0))
    first.complete_all(requests)
    tokens = 3 * PROMPT_TOKENS, 3 * COMPLETION_TOKENS
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == tokens
    assert first.usage.cost == pytest.approx((300 * 0.5 + 30 * 2.0) / 1e6) and first.usage.uncounted == 0
    again = client_of(stand_in, tmp_path / "a", prices=Prices(0.5, 2.0))
    again.complete_all(requests)
    assert again.usage.cost == 0 and again.usage.requests == 0
    assert (again.usage.cached_prompt_tokens, again.usage.cached_completion_tokens) == tokens
    assert client_of(stand_in, tmp_path / "a").usage.cost is None


def test_another_request_model_or_endpoint_is_another_question(stand_in: StandIn):
    client = client_of(stand_in)
    keys = {
        client.key_of(each) for each in (request("a"), request("b"), request("a", seed=1), request("a", stop=["x"]))
    }
    others = [
        client_of(stand_in, extra_body={"top_k": 1}),
        EndpointClient("judge-2", url=stand_in.url, cache=":memory:"),
    ]
    others.append(EndpointClient("judge-1", url="http://localhost:1/v1", cache=":memory:"))
    assert len(keys | {other.key_of(request("a")) for other in others}) == 7
    client_of(stand_in, extra_body={"top_k": 1}).complete_all([request("a", max_tokens=3, temperature=0.0, seed=5)])
    [body] = stand_in.asked
    sent = {"max_tokens": 3, "temperature": 0.0, "seed": 5, "top_k": 1, "model": "judge-1", "stream": False}
    assert json.loads(body) == sent | {"messages": [{"role": "user", "content": "a"}]}


def test_offline_mode_forbids_everything_but_the_named_address(stand_in: StandIn):
    assert constants.HF_HUB_OFFLINE
    assert client_of(stand_in).complete([{"role": "user", "content": "hello"}]).text == "A"
    with pytest.raises(OfflineModeIsEnabled):
        get_session().get(stand_in.url)


def test_providers_are_refused_in_offline_mode(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    client = EndpointClient("ORG/MODEL", cache=":memory:")
    with pytest.raises(UserError, match="Hugging Face's inference service needs a key: set the environment variable"):
        EndpointClient("ORG/MODEL", key_variable="NO_SUCH_KEY", cache=":memory:")
    with pytest.raises(UserError, match="Hugging Face's inference service: HF_HUB_OFFLINE is set; unset it"):
        client.complete([{"role": "user", "content": "hello"}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "url is 'localhost:8000'; give an address such as"),
        ({"url": "http://me:secret@host/v1"}, "url has a name or a password in it"),
        ({"url": "http://host/v1?api-key=secret"}, r"url has a key in it \(api-key\)"),
        ({"extra_body": {"api_key": "secret"}}, r"extra_body has a key in it \(api_key\)"),
        ({"provider": "together"}, "url and provider both say where the model is"),
        ({"key_variable": "NO_SUCH_KEY"}, "needs a key: set the environment variable NO_SUCH_KEY$"),
        ({"key_variable": "BAD_KEY"}, "BAD_KEY has spaces, quotes or other characters"),
        ({"timeout": 0}, "timeout is 0"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"max_cost": 1.0}, "max_cost needs prices"),
        ({"max_requests": 0}, "max_requests is 0"),
        ({"prices": {"prompt": 1.0}}, "give prompt and completion"),
        ({"prices": {"prompt": -1.0, "completion": 1.0}}, "prices: prompt is -1.0"),
    ],
)
def test_impossible_values_are_refused_before_anything_is_sent(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BAD_KEY", "two words")
    with pytest.raises(UserError, match=message) as caught:
        EndpointClient("judge-1", **{"url": "http://localhost:1/v1", "cache": ":memory:", **options})
    assert "secret" not in str(caught.value) and "two words" not in str(caught.value)


RUN = """
import os, signal, sqlite3, sys, time
from hf_align.feedback.judges.endpoint import ChatRequest, EndpointClient
from hf_align.feedback.judges.endpoint.cache import AnswerCache

url, cache = sys.argv[1:]

def start():
    if child := os.fork():
        return child
    client = EndpointClient("judge-1", url=url, cache=cache, concurrency=3)
    requests = [ChatRequest([{"role": "user", "content": str(number)}]) for number in range(60)]
    texts = [answer.text for answer in client.complete_all(requests)]
    os.write(1, (",".join(texts) + "\\n").encode())
    os._exit(0)

AnswerCache(cache, time.time).close()
for point in range(20):
    child = start()
    watch = sqlite3.connect(cache)
    while watch.execute("SELECT count(*) FROM answers").fetchone()[0] <= 2 * point:
        time.sleep(0.001)
    watch.close()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
for child in [start(), start()]:
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_processes_killed_at_20_points_resume_and_two_at_once_ask_nothing_twice(stand_in: StandIn, tmp_path: Path):
    keys, asked_in_vain = client_of(stand_in, tmp_path / "a", timeout=60.0), []

    def late(body: dict[str, Any]) -> str:
        if keys.cache.get(keys.key_of(ChatRequest(body["messages"]))) is not None:
            asked_in_vain.append(body)
        time.sleep(0.01)
        return echo(body)

    stand_in.answer = late
    command = [sys.executable, "-c", RUN, stand_in.url, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=True)
    assert done.stdout.split() == [",".join(f"re:{number}" for number in range(60))] * 2
    assert not asked_in_vain and len(stand_in.asked) == 60
    assert 60 < stand_in.asked.total() <= 60 + 20 * 3  # a kill loses what is under way, three requests
