"""Loading of the data sets named by a recipe's `train_dataset` and `eval_dataset`."""

import difflib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetNotFoundError, DatasetsError

from hf_align.algorithms import Rows
from hf_align.data.embedded.ratings import Split
from hf_align.data.embedded.rows import make_pairs, make_prompts, make_rankings
from hf_align.data.layouts.texts import text_columns
from hf_align.data.local_cache import cache_of
from hf_align.data.row_files import FileProblem, check_parquet, check_start, check_table, json_rows, suffix_of
from hf_align.errors import UserError

logger = logging.getLogger(__name__)

EMBEDDED, EMBEDDED_RANKINGS = "embedded:ratings", "embedded:rankings"
EMBEDDED_PAIRS = {"train": 2000, "eval": 200}
EMBEDDED_RESPONSES = 4  # of each ranked prompt
EMBEDDED_SPLITS: dict[str, Split] = {"train": "train", "eval": "validation"}
READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}
READERS |= {f"{suffix}.gz": reader for suffix, reader in READERS.items() if reader != "parquet"}
SAVED = ("dataset_info.json", "dataset_dict.json")
HELD_OUT = re.compile(r"(?:^|[-_./ ])(?:test|eval|evaluation|validation|valid|val|dev)(?:[-_./ \d]|$)")
"""Names of files that belong to a split other than the one to train on."""
SPLITS = {"train": ("train",), "eval": ("validation", "test", "eval")}


def load_rows(name: str, role: str, seed: int, kind: Rows = "pairs", *, field: str | None = None) -> Dataset:
    """Load a data set for training or evaluation.

    Args:
        name: `embedded:ratings` (the human ratings in the package), `embedded:rankings` (the same as prompts with four
            rated responses), a .jsonl, .json, .parquet or .csv file, a folder (saved by `datasets`, or with such
            files), or a Hub id.
        role: "train" takes the split `train`; "eval" takes `validation`, `test` or `eval`, the first that exists.
        seed: Seed of the embedded rows.
        kind: Rows to make from the embedded ratings: "pairs" (prompt, chosen, rejected, margin), "prompts" with the
            opening words of the sentences, or "demonstrations" (prompt and, as completion, the sentence that people
            rated higher). Other data is returned unchanged.
        field: Name of the recipe's key, for messages. Default: `train_dataset` or `eval_dataset`, by `role`.

    Raises:
        UserError: The data set doesn't exist, can't be read, or has no split for the role.
    """
    if name == EMBEDDED_RANKINGS:
        rows = EMBEDDED_PAIRS[role] * 2 // EMBEDDED_RESPONSES  # of as many sentences
        return make_rankings(EMBEDDED_SPLITS[role], rows, EMBEDDED_RESPONSES, seed)
    if name != EMBEDDED:
        return load_named(name, field or f"{role}_dataset", SPLITS[role])
    make = make_prompts if kind == "prompts" else make_pairs
    rows = make(EMBEDDED_SPLITS[role], EMBEDDED_PAIRS[role], seed)
    if kind == "demonstrations":
        return rows.select_columns(["prompt", "chosen"]).rename_column("chosen", "completion")
    return rows


def load_named(name: str, field: str, splits: tuple[str, ...], *, sole: bool = False) -> Dataset:
    """Load a file, a folder or a data set of the Hub.

    Args:
        name: File, folder or Hub id.
        field: Name of the recipe's key or the flag, for messages.
        splits: Acceptable splits, best first.
        sole: Whether the only split of a data set is acceptable, whatever its name.

    Raises:
        UserError: As `load_rows`.
    """
    path = Path(name)
    meant = name.startswith("embedded:") or difflib.get_close_matches(name, [EMBEDDED, EMBEDDED_RANKINGS], cutoff=0.8)
    if meant and ":" in name and not path.exists():  # data that the package doesn't contain
        near = difflib.get_close_matches(name, [EMBEDDED, EMBEDDED_RANKINGS], n=1, cutoff=0.0)
        raise UserError(f"{field}: there is no {name}; did you mean {near[0]}?")
    reader = READERS.get(suffix_of(path))
    if reader is not None and not path.is_file():
        raise UserError(f"{field}: there is no file {name}")
    if reader is None and path.is_file():
        raise UserError(f"{field}: {name} is not one of {', '.join(READERS)}; convert it to one")
    if path.is_dir() and not _is_saved(path):
        _check_kinds(path, name, field)
    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it also logs the errors it raises
    try:
        if reader is not None:
            loaded: Any = _read_file(reader, path)
        elif _is_saved(path):
            loaded = datasets.load_from_disk(str(path))
        elif path.is_dir():
            place = str(path.resolve())  # "." is no name
            files = datasets.load_dataset_builder(place).config.data_files or {}
            loaded = datasets.load_dataset(place, cache_dir=cache_of(files))
        else:
            loaded = datasets.load_dataset(name)
    except DatasetNotFoundError:
        raise UserError(
            f"{field}: {name!r} is neither a file, a folder nor a data set on the Hub that you can read"
        ) from None
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:  # RuntimeError: a .py script
        raise _unreadable(field, name, _problem(error, reader, path)) from None
    finally:
        datasets.logging.set_verbosity(verbosity)
    if not isinstance(loaded, DatasetDict):
        return loaded
    for split in (*splits, *(loaded if sole and len(loaded) == 1 else ())):
        if split in loaded:
            return loaded[split]
    raise UserError(f"{field}: {name} has no split {' or '.join(splits)}; it has {', '.join(map(str, loaded))}")


def check_split(name: str, split: str | None) -> None:
    """Refuse a split of data that has none: a file, a folder with one saved data set, or embedded data.

    Raises:
        UserError: There is a split, and the data has none.
    """
    path = Path(name)
    alone = path.is_file() or (path / SAVED[0]).exists() or name in (EMBEDDED, EMBEDDED_RANKINGS)
    if split is not None and alone:
        raise UserError(f"split is {split}, but {name} has no splits; leave it out")


def _check_kinds(folder: Path, name: str, field: str) -> None:
    """Refuse a folder with files of several kinds, of which only one would be read, unless its card says which."""
    kinds: dict[str, str] = {}
    for file in [] if (folder / "README.md").exists() else sorted(folder.rglob("*")):
        place = file.relative_to(folder)
        hidden = any(part.startswith((".", "__")) for part in place.parts)
        if not hidden and file.name != "dataset_infos.json" and suffix_of(file) in READERS and file.is_file():
            kinds.setdefault(READERS[suffix_of(file)], place.as_posix())
    if len(kinds) > 1:
        raise UserError(
            f"{field}: the folder {name} has files of several kinds ({', '.join(kinds.values())}); name one file, or "
            "a folder with files of one kind"
        )


def load_each(
    names: str | list[str], field: str, splits: tuple[str, ...], load: Callable[[str], Dataset]
) -> dict[str, Dataset]:
    """Load several data sets, and each file of a folder by itself, since they may have different columns.

    Files that by their name or folder belong to another split ("test.jsonl", "validation/0.parquet") are left out.

    Args:
        names: Names as `load_rows` takes them.
        field: Name of the recipe's key, for messages.
        splits: Acceptable splits, best first.
        load: Loads a data set by its name.

    Returns:
        The data sets by names without local folders: files by theirs, within the folder that was named.

    Raises:
        UserError: As `load_rows`, or a name is given twice.
    """
    loaded: dict[str, Dataset] = {}
    for name in [names] if isinstance(names, str) else names:
        path = Path(name)
        files = _mixed_files(path, field) if path.is_dir() else {}
        found = {key: load_named(str(file), field, splits) for key, file in files.items()}
        short = path.name if path.exists() else name
        for key, rows in (found or {short: load(name)}).items():
            if key in loaded:
                raise UserError(f"{field}: two data sets are called {key}; rename a file")
            loaded[key] = rows
    return loaded


def _mixed_files(folder: Path, field: str) -> dict[str, Path]:
    """Data files, and folders that `datasets` saved, in a folder that it didn't, by their places in it."""
    saved = [file.parent for name in SAVED for file in folder.rglob(name)]
    if folder in saved:
        return {}
    found = [file for file in folder.rglob("*") if suffix_of(file) in READERS]
    loose = [file for file in found if not any(file.is_relative_to(other) for other in saved)]
    files = {file.relative_to(folder).as_posix(): file for file in sorted([*loose, *saved])}
    files = {name: file for name, file in files.items() if not any(part.startswith(".") for part in Path(name).parts)}
    if others := [name for name in files if HELD_OUT.search(name.lower())]:
        logger.warning("%s: %s: of another split by name, and left out.", field, ", ".join(others))
    return {name: file for name, file in files.items() if name not in others}


def load_as_written(name: str, field: str, splits: tuple[str, ...]) -> Dataset | list[dict[str, Any]]:
    """As `load_named`, but any embedded data too, the only split of a data set, and JSON with its values as they stand.

    A data set of JSON would make times of texts like "2024-01-31", add the keys of other rows as null, and refuse a
    column with values of several types.

    Raises:
        UserError: As `load_rows`.
    """
    if name in (EMBEDDED, EMBEDDED_RANKINGS):
        return load_rows(name, "train", 0)
    path = Path(name)
    if READERS.get(suffix_of(path)) != "json" or not path.is_file():
        return load_named(name, field, splits, sole=True)
    try:
        return json_rows(path)
    except (OSError, FileProblem) as error:
        raise _unreadable(field, name, error) from None


def _unreadable(field: str, name: str, error: Exception) -> UserError:
    problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
    between = ", " if problem.startswith("line ") else " can't be read: "
    return UserError(f"{field}: {name}{between}{problem}")


def _read_file(reader: str, path: Path) -> Any:
    check_start(path)
    options: dict[str, Any] = {}
    if reader == "parquet":
        check_parquet(path)
    if reader == "csv":
        texts = check_table(path)
        options = {"keep_default_na": False, "na_values": [""]}  # "None" and "N/A" are texts
        texts |= dict.fromkeys(text_columns(list(texts)), True)
        options["converters"] = {name: _text for name, text in texts.items() if text}
        options["chunksize"] = 1 << 40  # rows read together: a column's type is that of all its values
        options["sep"] = "\t" if suffix_of(path).startswith(".tsv") else ","
    cache = cache_of({"train": [str(path.resolve())]})
    return datasets.load_dataset(reader, data_files=str(path), split="train", cache_dir=cache, **options)


def _text(cell: str) -> str | None:
    return cell or None


def _is_saved(path: Path) -> bool:
    return any((path / name).exists() for name in SAVED)


def _problem(error: Exception, reader: str | None, path: Path) -> FileProblem:
    """What is wrong, with the line where a text file is at fault."""
    if isinstance(error, FileProblem):
        return error
    if reader == "json":
        try:
            json_rows(path)
        except FileProblem as problem:
            return problem
    reason = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
    return FileProblem(f"its files are damaged or missing ({reason.rstrip('.')})" if _is_saved(path) else reason)
