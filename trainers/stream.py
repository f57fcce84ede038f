"""Training rows that are read one after another: a stream, whose length nobody knows.

Its first rows are a data set by which columns are checked and a layout is chosen; the others are checked and tokenised
as they come. A stream that ends begins again, so that every batch is full.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, repeat
from typing import Any, cast

import datasets
from datasets import Dataset
from torch.utils.data import IterableDataset
from transformers.utils import logging

from hf_align.collators.blocks import BlockReader, Rows
from hf_align.data.fingerprint import digest_of
from hf_align.errors import UserError

logger = logging.get_logger(__name__)

FIRST_ROWS = 512
"""Rows that are read and checked before a model is loaded."""
BLOCK = 256

Stream = datasets.IterableDataset | IterableDataset
"""Rows that can only be read one after another, of `datasets` or of torch."""


def is_stream(data: Any) -> bool:
    """Whether rows can only be read one after another."""
    return isinstance(data, Stream)


def first_rows(data: Any, name: str = "train_dataset") -> Rows:
    """The first rows of a stream, at most `FIRST_ROWS`.

    Raises:
        UserError: There are none, or one isn't a dict.
    """
    rows = list(islice(_opened(_plain(data), 0), FIRST_ROWS))
    if not rows:
        raise UserError(f"{name} has no rows.")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise UserError(f"{name}: row {number} is a {type(row).__name__}; give a stream of dicts.")
    return [dict(row) for row in rows]


def check_stream_options(args: Any, name: str = "train_dataset") -> None:
    """Refuse options that need all rows at once, or the number of rows.

    Raises:
        UserError: Names the option and the reason.
    """
    stream = f"{name} is a stream, "
    if args.max_steps <= 0:
        raise UserError(f"{stream}whose number of rows isn't known; give max_steps, the number of steps to train.")
    if args.dataloader_num_workers:
        raise UserError(
            f"{stream}which the training process reads itself, and dataloader_num_workers is "
            f"{args.dataloader_num_workers}; leave it out."
        )
    whole = {
        "curriculum": getattr(args, "curriculum", None) is not None,
        "precompute_ref_log_probs": getattr(args, "precompute_ref_log_probs", False),
        **{f"{each}='train'": getattr(args, each, None) == "train" for each in ("normalize_on", "length_penalty_on")},
    }
    for option in (option for option, given in whole.items() if given):
        raise UserError(f"{stream}and {option} needs all rows at once; leave it out, or load the rows as a Dataset.")


@dataclass(frozen=True)
class Mark:
    """A place in a stream, at the beginning of a block, that a later run can find again.

    Attributes:
        rows: Rows read before it, over all passes.
        turn: Number of the pass through the stream, from 0.
        row: Number of its first row in that pass.
        count: Rows of the block.
        digest: Digest of these.
        state: The stream's own state there, if it has one.
    """

    rows: int
    turn: int
    row: int
    count: int
    digest: str
    state: Any = None


class RowStream(IterableDataset):
    """Tokenised rows of a stream, in batches for one process, without end.

    All processes read all rows and tokenise their own: of each global batch, the first `size` rows are those of process
    0, and so on, as with a data set that has a length.

    Args:
        source: The stream.
        first: Its first rows, tokenised; where a data set is needed, this one is taken.
        read: The same rows as they were read.
        reader: Checks and tokenises further ones.
        indexed: Whether rows get an `index`: the number of rows before them, over all passes.
        block: Number of rows that are read and tokenised together.

    Attributes:
        first: See above.
        accept: Refuses tokenised rows, given with their numbers, that the model can't be trained on.
    """

    def __init__(
        self, source: Any, first: Dataset, read: Rows, reader: BlockReader, *, indexed: bool = False, block: int = BLOCK
    ):
        self.source, self.first, self.reader, self.indexed = _plain(source), first, reader, indexed
        self.block = block
        self.accept: Callable[[Rows, Sequence[int]], None] = lambda rows, numbers: None
        self._compared = min(block, len(read))
        self._beginning = digest_of(read[: self._compared])
        self.split(1, 0, 1)
        self.rewind()

    @property
    def column_names(self) -> list[str]:
        """Columns of the tokenised rows."""
        return self.first.column_names

    @property
    def beginning(self) -> str:
        """Digest of the first rows, the same on all processes that read the same stream."""
        return self._beginning

    def split(self, size: int, process: int, processes: int) -> None:
        """Give batches of `size` rows, those of the process with this number."""
        self.size, self.process, self.processes = size, process, processes

    def rewind(self) -> None:
        """Begin with the first row."""
        self._start, self._from, self._left_out = None, 0, 0

    def resume(self, state: Mapping[str, Any] | None, *, rows: int, batches: int) -> None:
        """Begin where an earlier run stood.

        Args:
            state: What `state` said; None: the rows before are read and left out.
            rows: Without a state, number of rows that the run had seen.
            batches: Number of batches that the dataloader is going to skip, for which None is given.
        """
        self._start = None if state is None else Mark(**state["block"])
        self._from = rows if state is None else state["rows"]
        self._left_out = batches

    def state(self) -> dict[str, Any]:
        """Say after which row the batches given so far end; of all processes the same."""
        block = next(mark for mark in reversed(self._marks) if mark.rows <= self._position)
        return {"rows": self._position, "block": asdict(block)}

    def __iter__(self) -> Iterator[Rows | None]:
        begin, size, batch = self._from, self.size, cast(Rows, [])
        self._position, self._marks = begin, deque[Mark]()
        yield from repeat(None, self._left_out)
        for mark, rows in self._blocks():
            mine = [
                place
                for place in range(max(0, begin - mark.rows), len(rows))
                if (mark.rows + place - begin) // size % self.processes == self.process
            ]
            for place, row in zip(mine, self._tokenized(rows, mark.row, mine), strict=True):
                batch.append({**row, "index": mark.rows + place} if self.indexed else row)
                if len(batch) == size:
                    self._position += size * self.processes
                    self._forget()
                    yield batch
                    batch = []

    def _tokenized(self, rows: Rows, first: int, places: list[int]) -> Rows:
        if not places:
            return []
        numbers = [first + place for place in places]
        tokenized = self.reader.tokenize([rows[place] for place in places], numbers)
        self.accept(tokenized, numbers)
        return tokenized

    def _forget(self) -> None:
        while len(self._marks) > 1 and self._marks[1].rows <= self._position:
            self._marks.popleft()

    def _blocks(self) -> Iterator[tuple[Mark, Rows]]:
        """Checked blocks of rows with their places, from the one to begin with."""
        if self._start is None:
            mark, (rows, others) = Mark(0, 0, 0, 0, ""), self._read(_opened(self.source, 0))
            self._check_beginning(rows)
        else:
            mark = self._start
            rows, others = self._found(mark)
        while True:
            if not rows and mark.row == 0:
                raise UserError(f"{self.reader.name} has no rows.")
            if not rows:
                if mark.turn == 0:
                    logger.warning(
                        f"{self.reader.name}: the stream ended after {mark.row:,} rows, and begins again: further "
                        "steps train on the same rows."
                    )
                mark = Mark(mark.rows, mark.turn + 1, 0, 0, "")
                rows, others = self._read(_opened(self.source, mark.turn))
                continue
            mark = Mark(mark.rows, mark.turn, mark.row, len(rows), digest_of(rows), mark.state)
            self._marks.append(mark)
            state = self._state_of_source()  # after these rows, before the next
            yield mark, self.reader.check(rows, mark.row)
            mark = Mark(mark.rows + len(rows), mark.turn, mark.row + len(rows), 0, "", state)
            rows = list(islice(others, self.block))

    def _read(self, rows: Iterator[Any]) -> tuple[Rows, Iterator[Any]]:
        return list(islice(rows, self.block)), rows

    def _check_beginning(self, rows: Rows) -> None:
        if digest_of(rows[: self._compared]) != self._beginning:
            raise UserError(
                f"{self.reader.name} gives other rows each time it is read, so it can be neither checked nor resumed; "
                "give a stream that begins anew, such as datasets.IterableDataset.from_generator(function)."
            )

    def _found(self, mark: Mark) -> tuple[Rows, Iterator[Any]]:
        """The rows of a block of an earlier run, and those behind it."""
        if mark.state is not None and isinstance(self.source, datasets.IterableDataset):
            found = self._by_state(mark)
            if found is not None:
                return found
        rows = _opened(self.source, mark.turn)
        for _ in islice(rows, mark.row):
            pass
        block, rows = self._read(rows)
        if digest_of(block[: mark.count]) != mark.digest:
            raise UserError(
                f"resume_from_checkpoint: {self.reader.name} has other rows from row {mark.row} on than the run that "
                "is resumed had; resume with the same rows in the same order (a shuffle with the same seed)."
            )
        return block, rows

    def _by_state(self, mark: Mark) -> tuple[Rows, Iterator[Any]] | None:
        """The same by the stream's own state; None if that leads elsewhere: it lacks the buffer of a shuffle."""
        self.source.set_epoch(mark.turn)
        try:
            self.source.load_state_dict({**mark.state, "epoch": mark.turn})
            block, rows = self._read(iter(self.source))
        except Exception as error:  # whatever the state of another stream causes
            logger.info(f"The stream can't be continued by its state ({type(error).__name__}), and is read anew.")
            return None
        finally:
            self.source.load_state_dict({})  # the next pass begins at the beginning
        return (block, rows) if digest_of(block[: mark.count]) == mark.digest else None

    def _state_of_source(self) -> Any:
        """The stream's own state, if it has one that JSON holds."""
        if not isinstance(self.source, datasets.IterableDataset):
            return None
        state = self.source.state_dict()
        try:
            return json.loads(json.dumps(state))
        except (TypeError, ValueError):
            return None


def _plain(data: Any) -> Any:
    """The stream with Python's values, not tensors."""
    return data.with_format(None) if isinstance(data, datasets.IterableDataset) else data


def _opened(source: Any, turn: int) -> Iterator[Any]:
    """Read a stream from its beginning, shuffled as in this pass."""
    if hasattr(source, "set_epoch"):
        source.set_epoch(turn)
    return iter(source)
