"""Reading of data files, folders of them and data sets of the Hub: the one way for all commands and recipes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import datasets
from datasets import Dataset, IterableDataset
from huggingface_hub import metadata_load, snapshot_download
from yaml import YAMLError

from hf_align.data.csv_files import Read, how_to_read, table_kinds, table_rows
from hf_align.data.exact import encoded, features_of
from hf_align.data.json_files import json_rows
from hf_align.data.local_cache import cache_of
from hf_align.data.row_files import READERS, FileProblem, check_parquet, check_start, suffix_of
from hf_align.version import __version__

SAVED = ("dataset_info.json", "dataset_dict.json")
"""Files of a folder that `datasets` saved."""


@dataclass(frozen=True)
class RowFile:
    """A file of rows.

    Attributes:
        path: Where it is.
        suffix: What is in it, which the path of a downloaded file doesn't say.
        name: What it is called in messages; None for the only one.
    """

    path: str
    suffix: str
    name: str | None = None


def read_file(path: Path) -> Dataset:
    """The rows of one file, by its suffix.

    Raises:
        FileProblem: It can't be read.
    """
    suffix = suffix_of(path)
    if READERS[suffix] != "parquet":
        return read_texts([RowFile(str(path.resolve()), suffix)])
    check_start(path, suffix)
    check_parquet(path)
    cache = cache_of({"train": [str(path.resolve())]})
    return cast(Dataset, datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=cache))


def stream_file(path: Path, told: Callable[[FileProblem], Exception]) -> IterableDataset:
    """The rows of one file as a stream.

    Args:
        path: The file.
        told: Makes the error to raise when a row that comes later can't be read.

    Raises:
        FileProblem: It can't be read.
    """
    suffix = suffix_of(path)
    check_start(path, suffix)
    if READERS[suffix] != "parquet":
        return stream_texts([RowFile(str(path.resolve()), suffix)], told)
    check_parquet(path)
    return cast(IterableDataset, datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True))


def stream_texts(files: Sequence[RowFile], told: Callable[[FileProblem], Exception]) -> IterableDataset:
    """The rows that `read_texts` reads as a stream, whose shards are the files; tables are read once before.

    Raises:
        FileProblem: A table can't be read.
    """
    columns = how_to_read([_kinds(file) for file in files if READERS[file.suffix] == "csv"])
    kwargs = {"files": list(files), "columns": columns, "told": told}
    return IterableDataset.from_generator(_streamed, gen_kwargs=kwargs)


def read_texts(files: Sequence[RowFile]) -> Dataset:
    """The rows of .json, .jsonl, .csv and .tsv files (or .gz of them), one after another, with values as they stand.

    Every file is read twice: first for what is in each column. The rows are kept in the cache of `datasets`.

    Raises:
        FileProblem: One can't be read; it names the file and the line.
    """
    columns = how_to_read([_kinds(file) for file in files if READERS[file.suffix] == "csv"])
    try:
        features = features_of(_rows(files, columns))
    except RecursionError:
        raise FileProblem("a row is nested too deeply") from None
    return cast(
        Dataset,
        Dataset.from_generator(
            _encoded,
            features=features,
            gen_kwargs={
                "files": tuple(files),
                "columns": columns,
                "features": features,
                "version": __version__,
            },
            cache_dir=cache_of({"train": [file.path for file in files]}),
        ),
    )


class Splits:
    """The splits of a folder or of a data set of the Hub, each read when it is asked for.

    Args:
        place: The folder, or the Hub id.
        subset: One of its subsets ("configs"). Default: its only or its default one.

    Attributes:
        names: Names of the splits.

    Raises:
        ValueError: There are several subsets and none is the default.
        Exception: `datasets` finds no data.
    """

    def __init__(self, place: str, subset: str | None = None):
        self.place, self.subset = place, subset
        self.builder = datasets.load_dataset_builder(place, subset)
        self.files = {str(name): list(files) for name, files in (self.builder.config.data_files or {}).items()}
        self.names = list(self.files) or list(map(str, self.builder.info.splits or {}))  # of a cache, without the Hub

    def read(self, split: str) -> Dataset:
        """The rows of a split.

        Raises:
            FileProblem: A file can't be read.
            Exception: `datasets` can't read it.
        """
        if not _are_texts(self.builder):
            for file in self.files.get(split, []):
                if _suffix(file) == ".parquet" and Path(file).is_file():
                    with _named(_short(file, self.place)):
                        check_start(Path(file), ".parquet")
                        check_parquet(Path(file))
            cache = cache_of(self.builder.config.data_files or {})
            return cast(Dataset, datasets.load_dataset(self.place, self.subset, split=split, cache_dir=cache))
        files, names = self.files[split], [_short(file, self.place) for file in self.files[split]]
        if not all(Path(file).is_file() for file in files):  # on the Hub
            config = datasets.DownloadConfig(token=self.builder.token)
            files = datasets.DownloadManager(self.builder.dataset_name, download_config=config).download(files)
        return read_texts([RowFile(file, _suffix(name), name) for file, name in zip(files, names, strict=True)])

    def unread(self) -> list[str]:
        """Files of rows in a local folder that belong to no split, where the folder's card doesn't say which do."""
        folder = Path(self.place)
        if names_files(folder / "README.md"):
            return []
        read = {Path(file).resolve() for files in self.files.values() for file in files}
        return [place for place, file in row_files_in(folder).items() if file.resolve() not in read]

    def stream(self, split: str, told: Callable[[FileProblem], Exception]) -> IterableDataset:
        """The rows of a split as a stream; text files of the Hub are read by `datasets`, without downloading them.

        Raises:
            FileProblem: A file can't be read.
            Exception: `datasets` can't read it.
        """
        files = self.files.get(split, [])
        if not (_are_texts(self.builder) and all(Path(file).is_file() for file in files)):
            return cast(IterableDataset, datasets.load_dataset(self.place, self.subset, split=split, streaming=True))
        names = [_short(file, self.place) for file in files]
        return stream_texts([RowFile(file, _suffix(name), name) for file, name in zip(files, names, strict=True)], told)


def downloaded(name: str) -> str | None:
    """The folder with those files of a data set of the Hub that were downloaded before; None if there is none."""
    try:
        return snapshot_download(name, repo_type="dataset", local_files_only=True)
    except (OSError, ValueError):  # there is none, or it is no name
        return None


def names_files(card: Path) -> bool:
    """Whether a data set's card exists and says which files belong to which split or subset."""
    try:
        head = metadata_load(card) if card.is_file() else None
    except (OSError, ValueError, YAMLError):  # what `datasets` says better
        return True
    return isinstance(head, dict) and "configs" in head


def row_files_in(folder: Path) -> dict[str, Path]:
    """Files of rows in a folder by their places in it, without those that `datasets` passes over."""
    files = {file.relative_to(folder): file for file in sorted(folder.rglob("*")) if suffix_of(file) in READERS}
    return {
        place.as_posix(): file
        for place, file in files.items()
        if file.is_file()
        and file.name != "dataset_infos.json"
        and not any(part.startswith((".", "__")) for part in place.parts)
    }


def is_saved(path: Path) -> bool:
    """Whether `datasets` saved the folder."""
    return any((path / name).exists() for name in SAVED)


@contextmanager
def _named(file: str | None) -> Iterator[None]:
    """Say which file a problem is in."""
    try:
        yield
    except FileProblem as problem:
        raise FileProblem(str(problem), file) from None


def _kinds(file: RowFile) -> Any:
    with _named(file.name):
        return table_kinds(Path(file.path), file.suffix)


def _rows(files: Sequence[RowFile], columns: Mapping[str, Read]) -> Iterator[dict[str, Any]]:
    for file in files:
        path = Path(file.path)
        with _named(file.name):
            if READERS[file.suffix] == "csv":
                yield from table_rows(path, file.suffix, columns)
            else:
                yield from json_rows(path, file.suffix)


def _streamed(
    files: Sequence[RowFile], columns: Mapping[str, Read], told: Callable[[FileProblem], Exception]
) -> Iterator[dict[str, Any]]:
    try:
        yield from _rows(files, columns)
    except FileProblem as problem:
        raise told(problem) from None


def _encoded(
    files: Sequence[RowFile], columns: Mapping[str, Read], features: datasets.Features, version: str
) -> Iterator[dict[str, Any]]:
    """Rows as they are stored; `version` is only part of the key under which `datasets` keeps them."""
    return encoded(_rows(files, columns), features)


def _are_texts(builder: datasets.DatasetBuilder) -> bool:
    """Whether the data is in text files that we read ourselves: without options of the data set's card."""
    config: Any = builder.config
    reader = type(builder).__module__.rpartition(".")[2]
    if reader not in ("json", "csv"):
        return False
    plain, names = type(config)(), [each.name for each in dataclasses.fields(config)]
    given = {name for name in names if getattr(config, name) != getattr(plain, name)}
    places = [str(place) for split in (config.data_files or {}).values() for place in split]
    if "sep" in given and config.sep != "\t":  # which .tsv files have
        return False
    return not given - {*_OF_ANY, "sep"} and all(_suffix(place) in READERS and "::" not in place for place in places)


_OF_ANY = {each.name for each in dataclasses.fields(datasets.BuilderConfig)}
"""Options of a builder that say which data it is, not how to read it."""


def _suffix(place: str) -> str:
    return suffix_of(Path(PurePosixPath(place.partition("?")[0]).name))


def _short(place: str, folder: str) -> str:
    """The file's path within its folder or data set."""
    path = Path(place)
    if path.is_file() and path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return place.rpartition("@")[2].partition("/")[2] if place.startswith("hf://") else path.name
