"""`hf-align export`: the answers in a preference store as a data set that trains, with a card."""

import argparse
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hf_align.cli.console import Screen, print_json, quiet_libraries, write_figures
from hf_align.cli.report_files import check_files
from hf_align.errors import UserError
from hf_align.feedback.export import ExportOptions, check_target, export_preferences, save_export
from hf_align.feedback.figures import figure_lines
from hf_align.feedback.store import open_store
from hf_align.numbers import plural

NAMES = (
    "method",
    "rows",
    "soft_labels",
    "ties",
    "min_agreement",
    "min_quality",
    "open_tasks",
    "gold",
    "names",
    "reasons",
)
COLUMNS = {
    **{"tasks": "tasks", "open": "open", "annotators": "annotators", "answers": "answers", "skips": "skips"},
    **{"undos": "undos", "agreement": "same answers", "gold_right": "gold right", "tied_answers": "ties"},
    **{"left": "left chosen", "seconds": "seconds"},
}
"""Columns of the tables of statistics, with their titles."""


def run_export(options: argparse.Namespace) -> None:
    """Make a data set of a store's answers, say what was left out, and write it; or print the store's statistics.

    Args:
        options: Parsed arguments; see `hf-align export --help`.

    Raises:
        UserError: There is no such store, nothing can be exported, or OUT is missing or can't be written.
    """
    screen = Screen(stderr=options.json == "-")
    check_files(options, ("json",))
    given = {name: getattr(options, name) for name in (*NAMES, "test_share", "seed")}
    given["adjudicators"] = tuple(options.adjudicator or ())
    chosen = ExportOptions.of(**given)
    if options.statistics:
        _refuse_others(options, chosen)
        _show_statistics(options, screen)
        return
    if options.target is None:
        raise UserError("OUT is missing: name a folder, a .jsonl or .parquet file, or ask for --statistics")
    check_target(options.target, splits=options.test_share > 0, overwrite=options.overwrite)
    with quiet_libraries(screen):
        store = open_store(options.store)
        try:
            export = export_preferences(store, **given)
        finally:
            store.close()
        save_export(export, options.target, license=options.license, overwrite=options.overwrite)
    figures = {**export.figures, "out": options.target}
    if options.json == "-":
        print_json(figures)
        return
    screen.line(str(export))
    for line in export.lines():
        screen.line(line)
    screen.line(f"written: {options.target} with the columns {', '.join(export.rows.column_names)}")
    if options.json is not None:
        write_figures(figures, options.json, screen)


def _refuse_others(options: argparse.Namespace, chosen: ExportOptions) -> None:
    """Refuse what has no effect on statistics of the whole store."""
    default = ExportOptions()
    others = [each.name for each in fields(chosen) if getattr(chosen, each.name) != getattr(default, each.name)]
    others += [name for name in ("license", "overwrite") if getattr(options, name)]
    if options.target is not None or others:
        what = f"OUT ({options.target})" if options.target is not None else f"the option for {others[0]}"
        raise UserError(f"--statistics are those of the whole store and export nothing; leave out {what}")


def _show_statistics(options: argparse.Namespace, screen: Screen) -> None:
    with quiet_libraries(screen):
        store = open_store(options.store)
        try:
            figures = store.statistics()
        finally:
            store.close()
    if options.json == "-":
        print_json(figures)
        return
    screen.line(
        f"{plural(figures['tasks'], 'task')} on {plural(figures['prompts'], 'prompt')}: {figures['answered']:,} "
        f"answered, {figures['open']:,} open, {plural(figures['gold'], 'gold question')}; "
        f"{plural(figures['answers'], 'answer')}, {plural(figures['skips'], 'skip')} and "
        f"{plural(figures['undos'], 'undo')} by {plural(figures['annotators'], 'annotator')}"
    )
    for line in figure_lines(figures):
        screen.line(line)
    for name in ("annotator", "group", "pool", "domain", "strategy"):
        if parts := figures[f"by_{name}"]:
            columns = [column for column in COLUMNS if column in parts[0]]
            cells = [[_cell(part[name]), *(_cell(part[column]) for column in columns)] for part in parts]
            screen.table(name, [name, *(COLUMNS[column] for column in columns)], cells)
    if options.json is not None:
        write_figures(figures, options.json, screen)


def _cell(figure: Any) -> str:
    """A count, or of a figure with parts the one that says most; a dash where it is undefined."""
    if isinstance(figure, Mapping):
        figure = next(figure[name] for name in ("share", "median", "raw") if name in figure)
    if figure is None:
        return "-"
    return f"{figure:.3g}" if isinstance(figure, float) else f"{figure:,}" if isinstance(figure, int) else figure
