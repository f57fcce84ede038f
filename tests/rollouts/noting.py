"""An engine's draws with the log-probs they were drawn from, recorded inside transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager, ContinuousMixin


def note_continuous(monkeypatch: pytest.MonkeyPatch, note: Callable[[Any], None]) -> None:
    """Let transformers' manager keep log-probs, and pass each of its results to `note`."""
    begin, get_result = ContinuousMixin.init_continuous_batching, ContinuousBatchingManager.get_result

    def begin_with_logps(self: Any, generation: Any, batching: Any) -> Any:
        batching.return_logprobs = True
        return begin(self, generation, batching)

    def result_of(self: Any, *args: Any, **options: Any) -> Any:
        result = get_result(self, *args, **options)
        if result is not None:
            note(result)
        return result

    monkeypatch.setattr(ContinuousMixin, "init_continuous_batching", begin_with_logps)
    monkeypatch.setattr(ContinuousBatchingManager, "get_result", result_of)
