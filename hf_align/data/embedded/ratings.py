"""Sentences of the embedded data set with every vote."""

from functools import cache
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset

from hf_align.errors import UserError

Split = Literal["train", "validation", "test"]
Domain = Literal["movies", "products", "tweets"]
SPLITS: tuple[Split, ...] = get_args(Split)
DOMAINS: tuple[Domain, ...] = get_args(Domain)
RATINGS_FILE = Path(__file__).with_name("ratings.parquet")
LICENSE_FILE = Path(__file__).with_name("LICENSE.vader.txt")


def load_ratings(split: Split | None = None, domain: Domain | None = None) -> Dataset:
    """Load the embedded sentences with every rater's vote.

    Args:
        split: "train", "validation" or "test" (90/5/5 of each domain); None (default) for all.
        domain: "movies", "products" or "tweets"; None (default) for all.

    Returns:
        A data set in memory with the columns `text` (one sentence), `domain`, `ratings` (votes from -4, very negative,
        to 4, very positive, one per rater), `mean` (their mean), `source_id` (the id in the original file), `split`
        and `neutral_words` (number of words at the start, 0 to 5, that say nothing about the polarity).

    Raises:
        UserError: if `split` or `domain` is not one of the names above.
    """
    table = _table()
    for column, value, names in (("split", split, SPLITS), ("domain", domain, DOMAINS)):
        if value is None:
            continue
        if value not in names:
            raise UserError(f"unknown {column} {value!r}: use one of {', '.join(names)}")
        table = table.filter(pc.field(column) == value)
    return Dataset(table.combine_chunks())


@cache
def _table() -> pa.Table:
    table = pq.read_table(RATINGS_FILE)
    means = [sum(votes) / len(votes) for votes in table["ratings"].to_pylist()]
    return table.append_column("mean", pa.array(means, pa.float64()))
