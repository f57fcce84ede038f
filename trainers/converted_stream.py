"""A stream of another layout than trainers read, converted row by row as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
from torch.utils.data import IterableDataset
from transformers.utils import logging

from hf_align.collators.blocks import Rows
from hf_align.data.layouts.conversion import convert_row
from hf_align.data.layouts.layout import Layout, Made, Tally
from hf_align.data.layouts.recognition import layout_to_convert
from hf_align.data.layouts.registry import columns_of
from hf_align.errors import UserError

logger = logging.get_logger(__name__)


class ConvertedStream(IterableDataset):
    """The pairs or rankings that a stream's rows make, in their order.

    A row makes none, one or several, as `to_preferences` makes of it by default. Of rows that can't be used, which are
    left out, the first of each kind is told of, then the tenth, the hundredth and so on.

    Args:
        source: The stream.
        layout: Its layout, of rows that are converted one by one.
        columns: Columns of its first rows.
        as_pairs: Whether to make pairs of rankings.
        name: The argument's name, for messages.
    """

    def __init__(self, source: Any, layout: Layout, columns: Sequence[str], *, as_pairs: bool, name: str):
        self.source = source.with_format(None) if isinstance(source, datasets.IterableDataset) else source
        self.layout, self.columns, self.as_pairs, self.name = layout, tuple(columns), as_pairs, name
        self._told = -1  # number of the last row that messages are about: a stream is read more than once

    def set_epoch(self, epoch: int) -> None:
        """Let the stream shuffle as in this pass, if it does."""
        if hasattr(self.source, "set_epoch"):
            self.source.set_epoch(epoch)

    def __iter__(self) -> Iterator[Made]:
        counts: dict[str, int] = {}
        for number, row in enumerate(self.source):
            tally = Tally()
            values = {column: row.get(column) for column in self.columns}
            yield from convert_row(self.layout, number, values, tally, as_pairs=self.as_pairs)
            for problem in tally.unusable:
                counts[problem] = counts.get(problem, 0) + 1
                self._tell(problem, number, counts[problem])

    def _tell(self, problem: str, number: int, count: int) -> None:
        if number <= self._told:
            return
        self._told = number
        if count == 1:
            logger.warning(f"{self.name}: row {number} is left out, having {problem}.")
        elif str(count).strip("0") == "1":
            logger.warning(f"{self.name}: {count:,} rows are left out so far, having {problem}, the last row {number}.")


def read_as_preferences(data: Any, first: Rows, name: str, *, plain: bool) -> Any:
    """The stream as it is if the trainer reads its rows, else as the pairs or rankings that they make.

    Args:
        data: The stream.
        first: Its first rows.
        name: The argument's name, for messages.
        plain: Whether the trainer takes pairs alone.

    Raises:
        UserError: No layout is recognised, or one whose pairs are made of several rows.
    """
    layout = layout_to_convert(first, name, plain=plain)
    if layout is None:
        return data
    if layout.whole is not None:
        raise UserError(
            f"{name} is a stream, and of its layout, {layout.name} ({layout.source}), a pair is made of several rows, "
            "which may be anywhere in it; convert it first (hf-align convert), or load it without streaming."
        )
    logger.warning(f"{name}: recognised {layout.name} ({layout.source}); rows are converted as they come.")
    return ConvertedStream(data, layout, columns_of(first), as_pairs=plain, name=name)
