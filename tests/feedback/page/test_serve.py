import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from hf_align.errors import UserError
from hf_align.feedback import PreferenceStore, Prompt, Response, Task, annotate
from hf_align.feedback.page.serve import Page

PASSWORDS = {"anna": "correct horse", "bob": "battery staple"}


def make_store(url: str = "sqlite://") -> PreferenceStore:
    store = PreferenceStore(url)
    prompt = Prompt("question")
    responses = [Response(prompt.id, f"response {i}", "a") for i in range(4)]
    tasks = [Task.of(responses[0], other) for other in responses[1:]]
    store.add(prompts=[prompt], responses=responses, tasks=tasks)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreferenceStore]:
    store = make_store(f"sqlite:///{tmp_path_factory.mktemp('page')}/prefs.db")
    yield store
    store.close()


@pytest.fixture(scope="module")
def page(store: PreferenceStore) -> Iterator[Page]:
    page = annotate(store, users=PASSWORDS)
    yield page
    page.close()


def client_of(page: Page) -> httpx.Client:
    return httpx.Client(base_url=page.url, timeout=60)  # a loaded machine takes more than the default of 5 s


@contextmanager
def log_in(page: Page, name: str) -> Iterator[httpx.Client]:
    with client_of(page) as client:
        client.post("/login", data={"username": name, "password": PASSWORDS[name]}).raise_for_status()
        yield client


def act(client: httpx.Client, name: str, *data: Any, **more: Any) -> httpx.Response:
    """Send what the button of an id sends, or the page when it is opened (`load`)."""
    config = client.get("/config").json()
    ids = {each["props"].get("elem_id"): each["id"] for each in config["components"]}
    (number,) = [
        each["id"]
        for each in config["dependencies"]
        if any(target == (ids.get(name), "click") or target[1] == name for target in map(tuple, each["targets"]))
    ]
    return client.post(
        "/gradio_api/run/predict", json={"data": [*data], "fn_index": number, "session_hash": "x"}, **more
    )


def shown(response: httpx.Response) -> tuple[str, str, str]:
    """Showing, progress and message of a page."""
    task, progress, message = (part if isinstance(part, str) else "" for part in response.json()["data"][:3])
    return task.partition('data-showing="')[2].partition('"')[0], progress, message


def test_the_page_is_for_those_who_log_in(page: Page) -> None:
    with client_of(page) as client:
        assert client.get("/config").status_code == 401
        body = {"data": [], "fn_index": 0, "session_hash": "x"}
        assert client.post("/gradio_api/run/predict", json=body).status_code == 401
        wrong = client.post("/login", data={"username": "anna", "password": PASSWORDS["bob"]})
        assert wrong.status_code == 400


def test_an_answer_is_of_whoever_is_logged_in(page: Page, store: PreferenceStore) -> None:
    with log_in(page, "anna") as anna, log_in(page, "bob") as bob:
        mine, progress, _ = shown(act(anna, "load", params={"annotator": "bob"}))
        assert "anna</span> <span>0 answered, 3 left" in progress
        _, progress, message = shown(act(bob, "choose-left", mine, None, ""))
        assert "shown to anna, and you are bob" in message
        assert not list(store.events())
        following, progress, message = shown(act(anna, "choose-left", mine, 0.6, "why"))
        assert "Saved: left is better." in message
        assert "1 answered, 2 left" in progress
        (answer,) = store.answers()
        lease = store.find_lease(mine)
        assert lease is not None
        assert (answer.annotator, answer.preference) == ("anna", lease.preference("left"))
        assert (answer.confidence, answer.reason, answer.details["page"]) == (0.6, "why", 1)
        assert page.stored == 1
        back, _, message = shown(act(anna, "undo", following))
        assert "Took your last answer back" in message
        assert back not in (mine, following)
        assert page.stored == 0


@pytest.mark.parametrize("confidence", ["much", 7, [0.6]])
def test_values_that_the_page_never_sends_change_nothing(page: Page, store: PreferenceStore, confidence: Any) -> None:
    before = len(list(store.events()))
    with log_in(page, "bob") as bob:
        showing = shown(act(bob, "load"))[0]
        response = act(bob, "tie", showing, confidence, "")
        assert response.status_code == 500 or "bad" in shown(response)[2]
        assert shown(act(bob, "load"))[0] == showing
    assert len(list(store.events())) == before


def test_other_sites_and_names_are_refused(page: Page) -> None:
    with log_in(page, "anna") as client:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}):
            assert client.post("/login", data={}, headers=headers).status_code == 403
            assert client.post("/gradio_api/run/predict", json={}, headers=headers).status_code == 403
        assert client.options("/login", headers={"Origin": "https://evil.example"}).status_code == 403
        for path in ("upload", "file=/etc/passwd", "info", "queue/join", "runs"):
            assert client.get(f"/gradio_api/{path}").status_code == 404


def test_the_page_loads_nothing_from_elsewhere(page: Page) -> None:
    with log_in(page, "anna") as client:
        response = client.get("/")
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'self'" in policy and "//" not in policy
        assert "fonts.googleapis" not in client.get("/theme.css").text
        config = client.get("/config").json()
        assert not config["analytics_enabled"]
        assert all(each["api_visibility"] == "private" for each in config["dependencies"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": True}, "share lets others open the page: give users"),
        ({"host": "0.0.0.0"}, r"host 0\.0\.0\.0 lets others open the page: give users"),
        ({"annotator": "<b>"}, "name '<b>' can't be used"),
        ({"users": {"anna": "short"}}, "password of 'anna' is too short"),
        ({"gold_share": 2}, "gold_share is 2"),
        ({"port": 99999}, "port is 99999; give a number from 1 to 65535"),
        ({"host": "203.0.113.1", "users": ["anna"]}, r"host 203\.0\.113\.1 can't be listened on"),
    ],
)
def test_what_is_unsafe_or_wrong_is_refused_before_anything_is_served(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        annotate(make_store(), **options)


def test_a_taken_port_is_refused(store: PreferenceStore) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 can't be used"):
            annotate(store, port=port)


def test_a_host_whose_first_address_is_not_this_machines_is_tried_at_its_others(
    store: PreferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    foreign = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: [foreign, *real(*given, **named)])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} on localhost can't be used"):  # so the host can
            annotate(store, host="localhost", port=port)
