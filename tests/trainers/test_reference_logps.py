"""The reference's log-probs are computed once for the same tokens, and stay with their rows in any order."""

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
    {"prompt_ids": [1] * length, "response_ids": [[2] * (length + 1), *[[3]] * others]}
    for length, others in ((2, 1), (5, 6), (1, 0), (4, 2), (3, 1))
]


def test_rows_are_scored_once_and_long_ones_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    batches: list[list[int]] = []

    def score(rows: list[dict[str, Any]]) -> Tensor:
        batches.append([len(row["prompt_ids"]) for row in rows])
        return torch.tensor([-float(len(ids)) for row in rows for ids in row["response_ids"]])

    def scored(key: str, data: Any) -> Any:
        return add_reference_logps(data, score, key=key, size=2, accelerator=Accelerator(), quiet=True)

    rows = Dataset.from_list(ROWS)
    first = scored("one", rows)
    assert batches == [[5, 4], [3, 2], [1]]
    assert first["ref_logps"][:] == [[-3, -1], [-6, *[-1] * 6], [-2], [-5, -1, -1], [-4, -1]]
    assert scored("one", {"again": rows})["again"]["ref_logps"][:] == first["ref_logps"][:]
    assert len(batches) == 3, "from the cache"
    scored("another", rows)
    scored("one", rows.select([0]))
    assert len(batches) == 7
    regrouped = [{"prompt_ids": [1], "response_ids": [[2], [3], [4], [5]]}]
    scored("one", Dataset.from_list(regrouped))
    scored(
        "one",
        Dataset.from_list(
            [{"prompt_ids": [1], "response_ids": [[2]]}, {"prompt_ids": [3], "response_ids": [[4], [5]]}]
        ),
    )
    assert len(batches) == 9, "the same tokens in other rows"
    assert scored("one", None) is None
