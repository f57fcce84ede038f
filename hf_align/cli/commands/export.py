"""`hf-align export`: the answers in a preference store as a data set that trains, with a card."""

import argparse
import json

from hf_align.cli.console import Screen, quiet_libraries, write_figures
from hf_align.cli.report_files import check_files
from hf_align.feedback.export import ExportOptions, check_target, export_preferences, save_export
from hf_align.feedback.store import open_store

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


def run_export(options: argparse.Namespace) -> None:
    """Make a data set of a store's answers, say what was left out, and write it.

    Args:
        options: Parsed arguments; see `hf-align export --help`.

    Raises:
        UserError: There is no such store, nothing can be exported, or OUT can't be written.
    """
    screen = Screen(stderr=options.json == "-")
    check_files(options, ("json",))
    given = {name: getattr(options, name) for name in (*NAMES, "test_share", "seed")}
    given["adjudicators"] = tuple(options.adjudicator or ())
    ExportOptions.of(**given)
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
        print(json.dumps(figures, indent=2, ensure_ascii=False))
        return
    screen.line(str(export))
    for line in export.lines():
        screen.line(line)
    screen.line(f"written: {options.target} with the columns {', '.join(export.rows.column_names)}")
    if options.json is not None:
        write_figures(figures, options.json, screen)
