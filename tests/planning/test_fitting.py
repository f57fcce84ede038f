"""The search for the largest micro-batch, and packing, without a trace."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from hf_align.layout.branches import Document
from hf_align.planning.fitting import largest_batch, row_tokens


@dataclass
class StandIn:
    """Settings whose memory is a function of the rows of a micro-batch."""

    bytes_of: Any
    memory: float
    args: Any = field(default_factory=SimpleNamespace)
    documents: list[Document] | None = None
    tried: list[int] = field(default_factory=list)
    rows: int = 1
    layout: str = "branch"

    @property
    def device(self) -> Any:
        return SimpleNamespace(memory=self.memory)

    @property
    def needs(self) -> Any:
        return SimpleNamespace(layout=self.layout)

    @property
    def device_bytes(self) -> float:
        self.tried.append(self.rows)
        return self.bytes_of(self.rows)

    def changed(self, **values: Any) -> Any:
        rows = values["per_device_train_batch_size"]
        return StandIn(self.bytes_of, self.memory, self.args, tried=self.tried, rows=rows)


@pytest.mark.parametrize("wanted", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("curve", [1.0, 1.05])
def test_the_largest_batch_is_the_last_that_fits(wanted: int, curve: float) -> None:
    def needed(rows: int) -> float:
        return max(900.0, 100 + 10 * rows**curve) if wanted > 64 else 100 + 10 * rows**curve

    settings: Any = StandIn(needed, memory=(needed(wanted) + needed(wanted + 1)) / 2)
    assert largest_batch(settings) == wanted
    assert len(settings.tried) <= 14, "not one after another"


def test_none_fits_and_batches_of_samples() -> None:
    settings: Any = StandIn(lambda rows: 100.0 * rows, memory=50)
    assert largest_batch(settings) is None
    settings = StandIn(lambda rows: 100.0 * rows, memory=1050, args=SimpleNamespace(num_samples=4))
    assert largest_batch(settings) == 8, "whole groups of 4 responses"


def test_packing_is_suggested_for_rows_of_unequal_length() -> None:
    args = SimpleNamespace(row_tokens=None, per_device_train_batch_size=8)
    mixed: Any = [([1] * length, [[1] * 5] * 2) for length in (90, 10, 10, 10, 10, 10, 10, 10)] * 4
    settings: Any = StandIn(None, 0, args, mixed)
    assert row_tokens(settings) == 100
    settings.documents = [([1] * 90, [[1] * 5] * 2)] * 32
    assert row_tokens(settings) is None, "rows of one length leave no padding"
    settings.documents, settings.layout = mixed, "separate"
    assert row_tokens(settings) is None
    settings.layout, args.row_tokens = "branch", 50
    assert row_tokens(settings) is None, "it is set already"
