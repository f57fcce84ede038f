"""A stand-in for an endpoint, without keys in the environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.feedback.judges.endpoint.stand_in import StandIn


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with StandIn().running() as running:
        yield running
