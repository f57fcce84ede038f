"""Where `datasets` keeps the rows of local files: a folder of its cache for each content of them.

`datasets` recognises a file by its path and time of change, and a folder with a card that lists its files by the card
alone. So it gives the rows that were there before where a folder is written again under the same card, or a file under
the same time (`cp -p`, `rsync -t`, an unpacked archive). Results of `Dataset.map` lie beside the rows they are made
of, so they are kept apart too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import config


def cache_of(files: Mapping[str, Sequence[str]]) -> str:
    """The cache of rows read from files, by their content.

    Args:
        files: Absolute paths or URLs of each split, as a builder's `config.data_files` or a dict has them.

    Returns:
        A folder for `cache_dir` of `datasets.load_dataset`, below `datasets.config.HF_DATASETS_CACHE`.

    Raises:
        OSError: A file can't be read.

    Example:
        >>> from hf_align.data.local_cache import cache_of
        >>> cache_of({"train": ["rows.csv"]}) == cache_of({"test": ["rows.csv"]})
        False
    """
    key = hashlib.sha256()
    for split, names in files.items():
        # Files elsewhere have a commit or an ETag.
        origins = getattr(names, "origin_metadata", None) or [()] * len(names)
        for name, origin in zip(names, origins, strict=True):
            place = Path(name.rpartition("::")[2])  # "zip://rows.csv::/data/rows.zip"
            if place.is_file():
                with place.open("rb") as file:
                    origin = hashlib.file_digest(file, "sha256").hexdigest()
            key.update(repr((split, name, origin)).encode())
    return str(Path(config.HF_DATASETS_CACHE) / "by_content" / key.hexdigest()[:32])
