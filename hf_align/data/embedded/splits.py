"""Fixed train, validation and test splits; copies and near copies of a text, and reviews, stay within one split."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from hf_align.data.duplicates import connected, near_duplicates

HELD_OUT = 0.05
"""Share of a domain's rows in validation, and in test."""


def group_rows(domains: Sequence[str], source_ids: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Name the group of every row: rows of one product review and (near) duplicate texts of any domain belong together.

    Args:
        domains: each row's domain.
        source_ids: each row's id within its domain; a product's is `review_sentence`.
        texts: each row's text.

    Returns:
        For each row the `domain/source_id` of its group's first row.
    """
    links = near_duplicates(texts)  # exact duplicates have similarity 1
    review_start: dict[str, int] = {}
    for i, (domain, source_id) in enumerate(zip(domains, source_ids, strict=True)):
        if domain == "products":
            links.append((review_start.setdefault(source_id.split("_")[0], i), i))
    return [f"{domains[i]}/{source_ids[i]}" for i in connected(len(texts), links)]


def assign_splits(groups: Sequence[str]) -> list[str]:
    """Give every group a split: 90% of a domain's rows to train, 5% to validation, 5% to test.

    Groups are taken in the order of the SHA-256 of their name and go to test while it has room, then to validation,
    then to train. So the splits depend only on the rows, and stay close to 90/5/5 although groups differ in size.

    Args:
        groups: each row's group, `domain/source_id`; the part before the slash is its domain.

    Returns:
        "train", "validation" or "test" for each row.
    """
    size = Counter(groups)
    rows_of_domain: Counter[str] = Counter(group.split("/")[0] for group in groups)
    filled: defaultdict[tuple[str, str], int] = defaultdict(int)
    split_of: dict[str, str] = {}
    for group in sorted(size, key=lambda group: hashlib.sha256(group.encode()).hexdigest()):
        domain = group.split("/")[0]
        split_of[group] = "train"
        for split in ("test", "validation"):
            if filled[domain, split] + size[group] <= HELD_OUT * rows_of_domain[domain]:
                filled[domain, split] += size[group]
                split_of[group] = split
                break
    return [split_of[group] for group in groups]
