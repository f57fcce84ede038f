"""The stand-in Hub, with this process's huggingface_hub pointed at it as HF_ENDPOINT points a new process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import transformers.utils.hub
from huggingface_hub import constants

from tests.hub.stand_in import TOKEN, StandIn
from tests.tiny import save_tiny

BASE = "team/base"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with StandIn().running() as stand_in:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
        template = stand_in.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the transfer over plain HTTP
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", stand_in.url)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # The client's retries without waiting in between.
        monkeypatch.setattr(huggingface_hub.utils._http, "time", SimpleNamespace(sleep=lambda seconds: None))
        yield stand_in


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model of one layer in a local folder, whose name must not be found on the Hub."""
    folder = tmp_path_factory.mktemp("anna-secret") / "local-base"
    save_tiny(folder, num_hidden_layers=1)
    return folder


@pytest.fixture
def base_on_hub(hub: StandIn, base: Path) -> str:
    """The same model as a repository."""
    hub.add(BASE, read_files(base))
    return BASE


def read_files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def environment(hub: StandIn, home: Path, token: str = TOKEN) -> dict[str, str]:
    """Environment that points a new process at the stand-in."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
    }
