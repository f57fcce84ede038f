"""Log-probs of the reference are computed once for the same tokens, and rows keep theirs whatever the order was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor

from hf_align.trainers.reference_logps import add_reference_logps

ROWS = [
    {"prompt_ids": [1] * length, "chosen_ids": [2] * (length + 1), "rejected_ids": [3]} for length in (2, 5, 1, 4, 3)
]


def test_rows_are_scored_once_and_long_ones_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hf_align.trainers.reference_logps.HF_HOME", str(tmp_path))
    batches: list[list[int]] = []

    def score(rows: list[dict[str, Any]]) -> Tensor:
        batches.append([len(row["prompt_ids"]) for row in rows])
        return torch.tensor([[-float(len(row["chosen_ids"])), -1.0] for row in rows])

    def scored(key: str, data: Any) -> Any:
        return add_reference_logps(data, score, key=key, size=2, accelerator=Accelerator(), quiet=True)

    rows = Dataset.from_list(ROWS)
    first = scored("one", rows)
    assert batches == [[5, 4], [3, 2], [1]]
    assert first["ref_chosen_logps"][:] == [-3.0, -6.0, -2.0, -5.0, -4.0]
    assert first["ref_rejected_logps"][:] == [-1.0] * 5
    assert scored("one", {"again": rows})["again"]["ref_chosen_logps"][:] == first["ref_chosen_logps"][:]
    assert len(batches) == 3, "from the cache"
    scored("another", rows)
    scored("one", rows.select([0]))
    assert len(batches) == 7
    assert scored("one", None) is None
