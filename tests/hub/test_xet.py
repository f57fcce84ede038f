"""Pushes and downloads through Xet, huggingface_hub's default where hf_xet is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.utils._xet import abort_xet_session

from hf_align.errors import UserError
from hf_align.hub import push_model
from hf_align.hub.push import upload
from hf_align.models.loading import load_policy
from tests.hub.conftest import read_files
from tests.hub.models import next_logps, trained
from tests.hub.stand_in import StandIn
from tests.hub.test_failures import FAILURES

STEPS = {"token": r"GET .*/xet-write-token/", "chunks": r"POST /xet/v1/xorbs/", "files": r"POST /xet/v1/shards"}


@pytest.fixture
def xet_hub(hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet-cache"))
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "1ms")
    abort_xet_session()
    yield hub
    abort_xet_session()


def test_what_was_pushed_through_xet_is_what_is_loaded(xet_hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path):
    trainer = trained("dpo", base, tmp_path / "dpo")
    push_model(tmp_path / "dpo", "mine", base_model=base_on_hub)
    weights = (tmp_path / "dpo" / "adapter_model.safetensors").read_bytes()
    assert xet_hub.repositories["anna/mine"].files["adapter_model.safetensors"] == weights
    assert xet_hub.xet.files and not [request for request in xet_hub.requests if "/lfs" in request]
    loaded = load_policy("anna/mine")
    assert [request for request in xet_hub.requests if request.startswith("GET /xet/data/")]
    torch.testing.assert_close(next_logps(loaded), next_logps(trainer.model.model), atol=1e-4, rtol=0)


def test_a_large_push_is_one_commit_too(xet_hub: StandIn, tmp_path: Path):
    xet_hub.add("anna/mine", {"model.safetensors": b"old", "notes.txt": b"theirs"})
    for number in range(300):
        (tmp_path / "stage" / f"checkpoint-{number}").mkdir(parents=True)
        (tmp_path / "stage" / f"checkpoint-{number}" / "trainer_state.json").write_text(f"{number}")
    upload(HfApi(), tmp_path / "stage", "anna/mine", "All of it", unchanged=tmp_path)
    repository = xet_hub.repositories["anna/mine"]
    assert repository.messages == ["All of it"]
    assert len(repository.files) == 301 and "notes.txt" in repository.files


@pytest.mark.parametrize("status", FAILURES, ids=["dropped", "500", "wrong token", "forbidden"])
@pytest.mark.parametrize("step", STEPS)
def test_a_transfer_that_breaks_is_said_clearly_and_a_retry_completes(
    step: str, status: int | None, xet_hub: StandIn, base: Path
):
    before = read_files(base)
    failure = xet_hub.fail(STEPS[step], status=status)
    message = FAILURES[status].replace("something broke", "Internal Server Error")
    with pytest.raises(UserError, match=message) as caught:
        push_model(base, "mine")
    assert str(caught.value).endswith(f"{base} is unchanged: run the same again to continue.")
    assert failure.seen and read_files(base) == before
    assert xet_hub.repositories["anna/mine"].messages == []
    xet_hub.failures.clear()
    push_model(base, "mine")
    assert xet_hub.repositories["anna/mine"].files["model.safetensors"] == before["model.safetensors"]
