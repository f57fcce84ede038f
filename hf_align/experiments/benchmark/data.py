"""The data of a benchmark: read and prepared once, stored in its folder, drawn from by each run's seed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from datasets import Dataset, load_from_disk

from hf_align.algorithms import Rows
from hf_align.data.embedded.rows import make_prompts
from hf_align.data.fingerprint import rows_digest
from hf_align.data.layouts.recognition import prompt_rows, trained_rows
from hf_align.data.parts import digest
from hf_align.data.sources import EMBEDDED, load_rows
from hf_align.errors import UserError
from hf_align.files import whole_folder
from hf_align.trainers.rollouts.schedule import Purpose, prompt_numbers, seed_of

EMBEDDED_NAMES = (EMBEDDED, "embedded")
EMBEDDED_PROMPTS = 200
"""Held-out prompts of the embedded ratings by default."""
DATA_SEED = 0
"""Seed of embedded rows and of flips: the data sets are the same for all runs."""
PAIRS, PROMPTS, PROBED = "pairs", "prompts", "kl_prompts"


@dataclass(frozen=True)
class TrainingData:
    """The rows of one data set, as all its runs have them.

    Attributes:
        pairs: Its pairs, flips and all; None without.
        prompts: Its different prompts.
        probed: Prompts that the KL is measured on, and nothing is trained on; None where it isn't limited.
        flipped: Numbers of the pairs whose labels were exchanged.
        left_out: Rows left out, since their prompts are held out.
    """

    pairs: Dataset | None
    prompts: Dataset | None
    probed: Dataset | None = None
    flipped: tuple[int, ...] = ()
    left_out: int = 0

    @cached_property
    def digests(self) -> dict[str, str]:
        """Digests of its rows by kind."""
        kinds = {PAIRS: self.pairs, PROMPTS: self.prompts, PROBED: self.probed}
        return {name: rows_digest(rows) for name, rows in kinds.items() if rows is not None}

    def rows_for(self, kind: Rows) -> Dataset | None:
        """The rows that an algorithm trains on: demonstrations are the chosen responses."""
        if kind == "prompts":
            return self.prompts
        if kind != "demonstrations" or self.pairs is None:
            return self.pairs
        if "prompt" in self.pairs.column_names:
            return self.pairs.select_columns(["prompt", "chosen"]).rename_column("chosen", "completion")
        messages = isinstance(self.pairs[0]["chosen"], list)
        return self.pairs.select_columns(["chosen"]).rename_column("chosen", "messages" if messages else "text")

    def save(self, folder: Path) -> None:
        """Write the rows into a folder, whole or not at all, unless they are there."""
        for name, rows in ((PAIRS, self.pairs), (PROMPTS, self.prompts), (PROBED, self.probed)):
            if rows is None:
                shutil.rmtree(folder / name, ignore_errors=True)  # of an earlier grid
            else:
                save_rows(rows, folder / name)

    @classmethod
    def load(cls, folder: Path) -> TrainingData:
        """Read what `save` wrote."""
        pairs, prompts, probed = (
            load_rows_of(folder / name) if (folder / name).exists() else None for name in (PAIRS, PROMPTS, PROBED)
        )
        return cls(pairs, prompts, probed)


def save_rows(rows: Dataset, folder: Path) -> None:
    """Write rows into a folder, whole or not at all, unless they are there."""
    if not folder.exists() or rows_digest(load_rows_of(folder)) != rows_digest(rows):
        with whole_folder(folder) as unfinished:
            rows.save_to_disk(str(unfinished))


def load_rows_of(folder: Path) -> Dataset:
    """Rows that `save_rows` wrote, in memory: of rows on the disk each run would leave its tokens beside them."""
    return cast(Dataset, load_from_disk(str(folder), keep_in_memory=True))


def read_held_out(name: str, limit: int | None, place: str) -> Dataset:
    """The held-out prompts that every policy answers.

    Args:
        name: A data source as recipes have them, or `embedded`.
        limit: Only the first rows.
        place: Its place in the grid, for messages.

    Raises:
        UserError: It can't be read, or has too few prompts.
    """
    if name in EMBEDDED_NAMES:
        return make_prompts("test", limit or EMBEDDED_PROMPTS, DATA_SEED)
    rows = load_rows(name, "eval", DATA_SEED, "prompts", field=place)
    return _first(prompt_rows(rows, place), limit)


def read_data(
    pairs: str | None,
    prompts: str | None,
    *,
    limit: int | None,
    flip: float,
    held_out: Dataset,
    probed: int | None,
    place: str,
) -> TrainingData:
    """Read a data set.

    Args:
        pairs: A source of pairs as recipes have them, or `embedded`.
        prompts: The same of prompts. None: the pairs' own.
        limit: Only the first pairs, and prompts.
        flip: Share of the pairs whose labels are exchanged.
        held_out: Prompts that nothing is trained on.
        probed: Number of prompts that the KL is measured on; None where it isn't limited.
        place: Its place in the grid, for messages.

    Raises:
        UserError: It can't be read, has no rows of a kind, or too few.
    """
    if pairs is None and prompts is None:
        raise UserError(f"{place} has neither pairs nor prompts; give one of them")
    out, left_out = {digest(prompt) for prompt in held_out["prompt"]}, 0
    table = None
    if pairs is not None:
        table = trained_rows(_source(pairs, "pairs", f"{place}.pairs"), f"{place}.pairs", plain=True)
        table = _first(table, limit)
        table, left_out = _without(table, out)
    if prompts is not None:
        asked = _first(prompt_rows(_source(prompts, "prompts", f"{place}.prompts"), f"{place}.prompts"), limit)
    else:
        asked = table if table is not None and "prompt" in table.column_names else None
        asked = None if asked is None else asked.select_columns(["prompt"])
    if asked is not None:
        asked, more = _without(_different(asked), out)
        left_out += more if prompts is not None else 0
    held = None
    if probed is not None:
        table, asked, held = _set_apart(table, asked, probed, place)
    for rows, what in ((table, "pairs"), (asked, "prompts")):
        if rows is not None and not len(rows):
            raise UserError(f"{place}: no {what} are left beside the held-out prompts; give other ones")
    table, flipped = (None, ()) if table is None else flip_labels(table, flip)
    return TrainingData(table, asked, held, flipped, left_out)


def flip_labels(pairs: Dataset, share: float) -> tuple[Dataset, tuple[int, ...]]:
    """Exchange the two responses of a share of the pairs, drawn once for all runs.

    Only the responses: whatever says how clear the choice was, votes and margins, stays as it is, as if whoever judged
    had taken one response for the other.

    Args:
        pairs: Rows with `chosen` and `rejected`.
        share: Share of the pairs, from 0 to below 1.

    Returns:
        The pairs, and the numbers of those that were flipped, ascending.
    """
    count = round(share * len(pairs))
    if not count:
        return pairs, ()
    flipped = sorted(random.Random(f"flips/{DATA_SEED}").sample(range(len(pairs)), count))
    chosen, rejected = pairs["chosen"][:], pairs["rejected"][:]
    for number in flipped:
        chosen[number], rejected[number] = rejected[number], chosen[number]
    features = pairs.features
    columns = {name: pairs[name][:] for name in pairs.column_names}
    return Dataset.from_dict({**columns, "chosen": chosen, "rejected": rejected}, features=features), tuple(flipped)


def draw(rows: Dataset, count: int | None, seed: int, start: int = 0) -> Dataset:
    """A run's rows: so many in an order by its seed; where there are fewer, all come again in another order.

    Args:
        rows: The data set's.
        count: Rows to draw. None: all.
        seed: The run's.
        start: Rows drawn before them, by other stages of the run.
    """
    total = len(rows)
    return rows.select(prompt_numbers(start, count or total, total, seed_of(seed, Purpose.ROWS)))


def _source(name: str, kind: Rows, field: str) -> Dataset:
    return load_rows(EMBEDDED if name in EMBEDDED_NAMES else name, "train", DATA_SEED, kind, field=field)


def _first(rows: Dataset, limit: int | None) -> Dataset:
    return rows if limit is None else rows.select(range(min(limit, len(rows))))


def _different(rows: Dataset) -> Dataset:
    first: dict[str, int] = {}
    for number, prompt in enumerate(rows["prompt"]):
        first.setdefault(digest(prompt), number)
    return rows.select(first.values())


def _without(rows: Dataset, out: Set[str]) -> tuple[Dataset, int]:
    """The rows whose prompts aren't among these, and how many were left out."""
    if "prompt" not in rows.column_names:
        return rows, 0
    kept = [number for number, prompt in enumerate(rows["prompt"]) if digest(prompt) not in out]
    return (rows if len(kept) == len(rows) else rows.select(kept)), len(rows) - len(kept)


def _set_apart(
    pairs: Dataset | None, prompts: Dataset | None, count: int, place: str
) -> tuple[Dataset | None, Dataset, Dataset]:
    """Pairs and prompts without those that the KL is measured on, and these: the last different prompts."""
    if prompts is None:
        raise UserError(f"{place}: the budget limits the KL, which is measured on prompts; give prompts")
    if len(prompts) <= count:
        raise UserError(
            f"{place} has {len(prompts)} different prompts, and the KL is measured on {count} that nothing trains on; "
            "lower kl_prompts of the budget, or give more prompts"
        )
    probed = prompts.select(range(len(prompts) - count, len(prompts)))
    out = {digest(prompt) for prompt in probed["prompt"]}
    left = None if pairs is None else _without(pairs, out)[0]
    return left, _without(prompts, out)[0], probed
