"""Pushes that break in the middle: a clear sentence, local files and the repository as they were, and a second try."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hf_align.errors import UserError
from hf_align.hub import push_model
from tests.hub.conftest import read_files
from tests.hub.stand_in import StandIn

STEPS = {
    "create": r"POST /api/repos/create",
    "card check": r"POST /api/validate-yaml",
    "preupload": r"POST .*/preupload/",
    "batch": r"POST .*/objects/batch",
    "upload": r"PUT /lfs-storage/",
    "commit": r"POST .*/commit/",
}
FAILURES = {
    None: r"failed: the connection broke \(.+\)\.",
    500: r"failed: the Hub answered 500 \(something broke\)\.",
    401: r"failed: the Hub doesn't accept the token \(401\); log in with `hf auth login`",
    403: r"failed: the token may not do that \(403\)",
}


@pytest.mark.parametrize("status", FAILURES, ids=["dropped", "500", "wrong token", "forbidden"])
@pytest.mark.parametrize("step", STEPS)
def test_a_failure_is_said_clearly_and_a_retry_completes(
    step: str, status: int | None, hub: StandIn, base: Path, tmp_path: Path
):
    before = read_files(base)
    failure = hub.fail(STEPS[step], status=status)
    with pytest.raises(UserError, match=FAILURES[status]) as caught:
        push_model(base, "mine")
    assert "\n" not in str(caught.value) and failure.seen
    assert step == "create" or str(caught.value).endswith(f"{base} is unchanged: run the same again to continue.")
    assert read_files(base) == before and not list(base.parent.glob(".*"))
    assert step == "create" or hub.repositories["anna/mine"].messages == []
    hub.failures.clear()
    push_model(base, "mine")
    assert hub.repositories["anna/mine"].files["model.safetensors"] == before["model.safetensors"]


def test_what_was_uploaded_before_a_failure_is_not_uploaded_again(hub: StandIn, base: Path):
    hub.fail(STEPS["commit"], status=500)
    with pytest.raises(UserError):
        push_model(base, "mine")
    hub.failures.clear()
    uploads = len([request for request in hub.requests if request.startswith("PUT")])
    push_model(base, "mine")
    assert uploads == len([request for request in hub.requests if request.startswith("PUT")]) == 1


@pytest.mark.parametrize("status", [None, 503], ids=["dropped", "503"])
def test_a_hiccup_is_not_even_noticed(status: int | None, hub: StandIn, base: Path):
    failure = hub.fail(STEPS["upload"], status=status, times=2)
    push_model(base, "mine")
    assert failure.seen == 2


def test_without_a_token_it_says_how_to_log_in(
    hub: StandIn, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="log in with `hf auth login`, or set HF_TOKEN"):
        push_model(base, "mine")


def test_a_hub_that_is_not_there_is_named_as_such(hub: StandIn, base: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=re.escape("Creating the repository mine failed: the connection broke")):
        push_model(base, "mine")
