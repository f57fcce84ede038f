"""What the commands that evaluate share: the rows they read, and the files they write."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from datasets import Dataset

from hf_align.cli.console import Screen, print_json, write_figures
from hf_align.data.embedded.rows import heldout_sentences
from hf_align.data.sources import EMBEDDED, check_split, load_named
from hf_align.errors import UserError
from hf_align.files import check_file
from hf_align.report.shown import Shown, check_suffix

if TYPE_CHECKING:  # few of the commands plan
    from hf_align.planning.planner import Plan

Rows = TypeVar("Rows", Dataset, list[dict[str, Any]], Dataset | list[dict[str, Any]])

EVALUATION_SPLITS = ("test", "validation", "eval", "train")
"""Splits of a data set that are read, the first that exists."""


def first_rows(rows: Rows, limit: int | None) -> Rows:
    """The first rows of a data set, or all without a limit."""
    if limit is None:
        return rows
    if limit < 1:
        raise UserError(f"limit is {limit}; give a number from 1")
    return rows.select(range(min(limit, len(rows)))) if isinstance(rows, Dataset) else rows[:limit]


def people_rows(options: argparse.Namespace) -> Dataset:
    """What people preferred, as `--data` and `--split` name it."""
    check_split(options.data, options.split)
    splits = EVALUATION_SPLITS if options.split is None else (options.split,)
    return heldout_sentences("test") if options.data == EMBEDDED else load_named(options.data, "data", splits)


def check_files(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse files that can't be written before anything is measured."""
    if getattr(options, "report", None) is not None:
        check_suffix(options.report, "report")
    for name in names:
        path = getattr(options, name)
        if path is not None and path != "-":
            check_file(path, name)


def show_report(
    report: Shown, options: argparse.Namespace, screen: Screen, figures: dict[str, Any] | None = None
) -> None:
    """Print a report, or its figures as JSON, and write the files that are asked for.

    Args:
        report: The report.
        options: Parsed arguments with `json` and `report`.
        screen: Receives the text.
        figures: The figures. Default: the report's.
    """
    figures = report.to_json() if figures is None else figures
    if options.json == "-":
        print_json(figures)
    else:
        screen.line(str(report))
        if options.json is not None:
            write_figures(figures, options.json, screen)
    if options.report is not None:
        write_file(report.save, options.report, "report", screen)


def write_file(write: Callable[[str], Any], path: str, name: str, screen: Screen) -> None:
    """Write a file and say where it is.

    Raises:
        UserError: It can't be written.
    """
    try:
        write(path)
    except OSError as error:
        raise UserError(f"{name}: {path} can't be written: {error.strerror or error}") from None
    screen.line(f"{name}: {path}")


def write_recipe(planned: "Plan", path: str, screen: Screen) -> None:
    """Write a plan's recipe with the changes that it needs to fit, and say the command that reads it.

    Raises:
        UserError: The planner knows no changes with which it fits, or the file can't be written.
    """
    write_file(planned.save_recipe, path, "recipe", screen)
    missing = planned.settings.missing()
    screen.line(f"train: {planned.command(path)}" + f", with {', '.join(missing)} still to be given" * bool(missing))
