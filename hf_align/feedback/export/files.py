"""An export as a file, or as a folder with a card that `datasets` and the Hub read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from datasets import Dataset, Features

from hf_align.data.sinks import FILES, check_out, write_rows
from hf_align.errors import UserError
from hf_align.feedback.export.made import Export
from hf_align.feedback.export.rows import COLUMNS
from hf_align.files import whole_folder
from hf_align.model_cards.datasets import DATA_FOLDER, DataFacts, save_data_card


def check_target(out: str | os.PathLike[str], *, splits: bool = False, overwrite: bool = False) -> None:
    """Refuse a destination, before any work.

    Args:
        out: A .jsonl or .parquet file, or a folder.
        splits: Whether the rows are split, which takes a folder.
        overwrite: Whether a file, or a folder with a data set, may be replaced.

    Raises:
        UserError: It can't be written, exists, or can't hold the rows.
    """
    check_out(str(out), Features({"answers": COLUMNS["answers"]}), overwrite=overwrite)
    if splits and Path(out).suffix.lower() in FILES:
        raise UserError(
            f"OUT: {out} is one file, and a split into train and test takes a folder: a name without suffix"
        )


def save_export(
    export: Export, out: str | os.PathLike[str], *, license: str | None = None, overwrite: bool = False
) -> None:
    """Write an export: a file with its rows, or a folder with a Parquet file for each split and a card, README.md.

    `datasets.load_dataset(FOLDER)` reads the folder, and `hf-align push FOLDER ORG/NAME` pushes it.

    Args:
        export: The export.
        out: A .jsonl or .parquet file, or a folder: a name without suffix. It appears whole or not at all.
        license: Licence of the data for the card, such as "cc-by-4.0". Default: "unknown".
        overwrite: Whether to replace a file, or a folder with a data set.

    Raises:
        UserError: As `check_target`, or the disk fails.

    Example:
        >>> from hf_align.feedback import PreferenceStore
        >>> from hf_align.feedback.export import export_preferences, save_export
        >>> export = export_preferences(PreferenceStore(), test_share=0.1)  # doctest: +SKIP
        >>> save_export(export, "preferences", license="cc-by-4.0")  # doctest: +SKIP
    """
    check_target(out, splits=len(export.splits) > 1, overwrite=overwrite)
    path = Path(out)
    try:
        if path.suffix.lower() in FILES:
            write_rows(export.rows, path)
            return
        with whole_folder(path) as folder:
            (folder / DATA_FOLDER).mkdir()
            files = {name: _write_split(rows, folder / DATA_FOLDER, name) for name, rows in export.splits.items()}
            save_data_card(folder, DataFacts(path.resolve().name, dict(export.figures), files, license))
    except OSError as error:
        raise UserError(f"OUT: {out} can't be written: {error.strerror or error}") from None


def _write_split(rows: Dataset, folder: Path, name: str) -> str:
    """Write a split; its file's name holds a digest of the content.

    `datasets` keeps the rows of a folder with a card under a key of the card alone: under one name for all, a second
    export of the same shape would be read as the first.
    """
    unnamed = folder / f"{name}.parquet"
    rows.to_parquet(str(unnamed))
    with unnamed.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return unnamed.rename(folder / f"{name}-{digest}.parquet").name
