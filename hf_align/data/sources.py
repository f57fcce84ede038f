"""Loading of the data sets named by a recipe's `train_dataset` and `eval_dataset`."""

import difflib
import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict, IterableDataset
from datasets.config import HF_DATASETS_CACHE
from datasets.exceptions import DatasetNotFoundError, DatasetsError

from hf_align.algorithms import Rows
from hf_align.data.embedded.ratings import Split
from hf_align.data.embedded.rows import make_pairs, make_prompts, make_rankings
from hf_align.data.reading import SAVED, Splits, downloaded, is_saved, names_files, read_file, row_files_in, stream_file
from hf_align.data.row_files import READERS, FileProblem, suffix_of
from hf_align.errors import UserError
from hf_align.full_disk import DiskFull, code_of

logger = logging.getLogger(__name__)

EMBEDDED, EMBEDDED_RANKINGS = "embedded:ratings", "embedded:rankings"
EMBEDDED_PAIRS = {"train": 2000, "eval": 200}
EMBEDDED_RESPONSES = 4  # of each ranked prompt
EMBEDDED_SPLITS: dict[str, Split] = {"train": "train", "eval": "validation"}
HELD_OUT = re.compile(r"(?:^|[-_./ ])(?:test|eval|evaluation|validation|valid|val|dev)(?:[-_./ \d]|$)")
"""Names of files that belong to a split other than the one to train on."""
SPLITS = {"train": ("train",), "eval": ("validation", "test", "eval")}


def load_rows(
    name: str,
    role: str,
    seed: int,
    kind: Rows = "pairs",
    *,
    field: str | None = None,
    splits: tuple[str, ...] | None = None,
) -> Dataset:
    """Load a data set for training or evaluation, with all values as they stand in the file.

    Args:
        name: `embedded:ratings` (the human ratings in the package), `embedded:rankings` (the same as prompts with four
            rated responses), a file (`READERS` has the suffixes), a folder (saved by `datasets`, or with such files),
            or a Hub id; see `load_named`.
        role: "train" takes the split `train`; "eval" takes `validation`, `test` or `eval`, the first that exists.
        seed: Seed of the embedded rows.
        kind: Rows to make from the embedded ratings: "pairs" (prompt, chosen, rejected, margin), "prompts" with the
            opening words of the sentences, or "demonstrations" (prompt and, as completion, the sentence that people
            rated higher). Other data is returned unchanged.
        field: Name of the recipe's key, for messages. Default: `train_dataset` or `eval_dataset`, by `role`.
        splits: Acceptable splits, best first. Default: by `role`.

    Raises:
        UserError: The data set doesn't exist, can't be read, or has no split for the role.
    """
    if name == EMBEDDED_RANKINGS:
        rows = EMBEDDED_PAIRS[role] * 2 // EMBEDDED_RESPONSES  # of as many sentences
        return make_rankings(EMBEDDED_SPLITS[role], rows, EMBEDDED_RESPONSES, seed)
    if name != EMBEDDED:
        return load_named(name, field or f"{role}_dataset", splits or SPLITS[role])
    make = make_prompts if kind == "prompts" else make_pairs
    rows = make(EMBEDDED_SPLITS[role], EMBEDDED_PAIRS[role], seed)
    if kind == "demonstrations":
        return rows.select_columns(["prompt", "chosen"]).rename_column("chosen", "completion")
    return rows


def load_stream(name: str, field: str, splits: tuple[str, ...], *, seed: int, buffer: int) -> IterableDataset:
    """Load rows as a stream, shuffled.

    Args:
        name: As for `load_named`.
        field: Name of the recipe's key, for messages.
        splits: Acceptable splits, best first. The only one is taken, whatever its name.
        seed: Seed of the shuffle.
        buffer: Rows that it draws from; 0: the stream's own order.

    Raises:
        UserError: As `load_named`, or the data is part of the package.
    """
    if name in (EMBEDDED, EMBEDDED_RANKINGS):
        raise UserError(f"{field}: {name} lies in memory; leave streaming out")
    rows: IterableDataset = _load(name, field, splits, stream=True)
    return rows.shuffle(seed=seed, buffer_size=buffer) if buffer else rows


def load_named(name: str, field: str, splits: tuple[str, ...]) -> Dataset:
    """Load a file, a folder or a data set of the Hub, with all values as they stand.

    Args:
        name: File, folder or Hub id; behind a colon perhaps a split, a subset or both: "ORG/DATA:train_prefs",
            "ORG/DATA:SUBSET:test".
        field: Name of the recipe's key or the flag, for messages.
        splits: Acceptable splits, best first. The only one is taken, whatever its name.

    Raises:
        UserError: As `load_rows`.
    """
    return _load(name, field, splits, stream=False)


def _load(name: str, field: str, splits: tuple[str, ...], *, stream: bool) -> Any:
    if not name.strip():
        raise UserError(f"{field} is empty; name a file, a folder or a data set of the Hub")
    place, chosen = _parts(name)
    if "://" in place:
        raise UserError(f"{field}: {place} is an address; download it and name the file")
    path = Path(place)
    meant = name.startswith("embedded:") or difflib.get_close_matches(name, [EMBEDDED, EMBEDDED_RANKINGS], cutoff=0.8)
    if meant and ":" in name and not path.exists():  # data that the package doesn't contain
        near = difflib.get_close_matches(name, [EMBEDDED, EMBEDDED_RANKINGS], n=1, cutoff=0.0)
        raise UserError(f"{field}: there is no {name}; did you mean {near[0]}?")
    reader = READERS.get(suffix_of(path))
    if reader is not None and not path.is_file():
        raise UserError(f"{field}: there is no file {place}")
    if reader is None and path.is_file():
        raise UserError(f"{field}: {place} is not one of {', '.join(READERS)}; convert it to one")
    if path.is_file() and chosen:
        raise UserError(f"{field}: {place} is one file, which has no splits; leave out :{':'.join(chosen)}")
    if path.is_dir() and not is_saved(path):
        _check_kinds(path, place, field)
    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it also logs the errors it raises
    try:
        if not path.is_file():
            return _load_split(place, chosen, field, splits, stream=stream)
        return stream_file(path, partial(_unreadable, field, place)) if stream else read_file(path)
    except DatasetNotFoundError:
        raise UserError(
            f"{field}: {place!r} is neither a file, a folder nor a data set on the Hub that you can read"
        ) from None
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:  # RuntimeError: a .py script
        raise _unreadable(field, place, error) from None
    finally:
        datasets.logging.set_verbosity(verbosity)


def _parts(name: str) -> tuple[str, list[str]]:
    """The name's file, folder or Hub id, and what is behind it: a subset, a split."""
    chosen: list[str] = []
    while not Path(name).exists() and ":" in name and "://" not in name:
        name, _, part = name.rpartition(":")
        chosen.insert(0, part)
    return name, chosen


def _load_split(place: str, chosen: list[str], field: str, splits: tuple[str, ...], *, stream: bool) -> Any:
    """One split of a folder or of a data set of the Hub."""
    path = Path(place)
    if is_saved(path):
        loaded: Any = datasets.load_from_disk(str(path))
        if not isinstance(loaded, DatasetDict):
            if chosen:
                raise UserError(f"{field}: {place} is one data set without splits; leave out :{':'.join(chosen)}")
            return loaded.to_iterable_dataset() if stream else loaded
        split = _choose(list(map(str, loaded)), place, chosen, field, splits)
        return loaded[split].to_iterable_dataset() if stream else loaded[split]
    source = _open(str(path.resolve()) if path.is_dir() else place, place, chosen, field)  # "." is no name
    split = _choose(source.names, place, chosen, field, splits)
    if path.is_dir() and (others := source.unread()):
        logger.warning("%s: of no split by name, and left out: %s.", field, _first_of(others))
    return source.stream(split, partial(_unreadable, field, place)) if stream else source.read(split)


def _open(where: str, place: str, chosen: list[str], field: str) -> Splits:
    """The splits of a data set, of the subset that `chosen` begins with where there are several."""
    try:
        if chosen and len(names := datasets.get_dataset_config_names(where)) > 1 and chosen[0] in names:
            return Splits(where, chosen.pop(0))
        return Splits(where)
    except (DatasetNotFoundError, ConnectionError):
        if Path(where).is_dir() or (folder := downloaded(where)) is None:
            raise
        return _open(folder, place, chosen, field)  # without the Hub
    except ValueError as error:
        if "onfig name is missing" not in str(error):
            raise
        names = datasets.get_dataset_config_names(where)
        raise UserError(
            f"{field}: {place} has the subsets {', '.join(names)}; name one, as {place}:{names[0]}"
        ) from None


def _choose(names: list[str], place: str, chosen: list[str], field: str, splits: tuple[str, ...]) -> str:
    """The split that is asked for by name, the first acceptable one, or the only one.

    Raises:
        UserError: There is none.
    """
    for split in chosen or (*splits, *(names if len(names) == 1 else ())):
        if split in names:
            return split
    if not names:
        raise UserError(f"{field}: {place} has no data files")
    asked = ":".join(chosen) or " or ".join(splits)
    raise UserError(
        f"{field}: {place} has no split {asked}; it has {', '.join(names)}: name one, as {place}:{names[0]}"
    )


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
    for place, file in ({} if names_files(folder / "README.md") else row_files_in(folder)).items():
        kinds.setdefault(READERS[suffix_of(file)], place)
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
    loose = [file for file in row_files_in(folder).values() if not any(file.is_relative_to(other) for other in saved)]
    files = {file.relative_to(folder).as_posix(): file for file in sorted([*loose, *saved])}
    files = {name: file for name, file in files.items() if not any(part.startswith(".") for part in Path(name).parts)}
    if others := [name for name in files if HELD_OUT.search(name.lower())]:
        logger.warning("%s: %s: of another split by name, and left out.", field, ", ".join(others))
    return {name: file for name, file in files.items() if name not in others}


def _unreadable(field: str, name: str, error: Exception) -> UserError:
    """What is wrong, with file and line where a text file is at fault."""
    if (code := code_of(error)) is not None:  # rows are read through the cache
        return DiskFull(HF_DATASETS_CACHE, code)
    if isinstance(error, FileProblem):
        problem, name = str(error), f"{name}/{error.file}" if error.file else name
    elif is_saved(Path(name)):
        problem = f"its files are damaged or missing ({_first_line(error).rstrip('.')})"
    elif "Couldn't cast" in _first_line(error):
        problem = "its files have different columns, or columns of different types"
    else:
        problem = (error.strerror if isinstance(error, OSError) else None) or _first_line(error)
    between = ", " if problem.startswith("line ") else " can't be read: "
    return UserError(f"{field}: {name}{between}{problem}")


def _first_of(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _first_line(error: Exception) -> str:
    return (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
