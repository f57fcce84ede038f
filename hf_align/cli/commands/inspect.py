"""`hf-align inspect`: what is in a preference data set, as text, JSON or a page, and the rows without it."""

import argparse

from datasets import Features

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.cli.report_files import EVALUATION_SPLITS, check_files, first_rows, show_report
from hf_align.data import Inspection, inspect_preferences
from hf_align.data.inspection.result import log_file
from hf_align.data.sinks import Source, check_out
from hf_align.data.sources import check_split, load_rows
from hf_align.errors import UserError
from hf_align.tracking.facts import command_line

SPLITS = ("train", "test", "validation", "eval")


def run_inspect(options: argparse.Namespace) -> None:
    """Inspect a data set, print what was found and write the files that are asked for.

    Args:
        options: Parsed arguments; see `hf-align inspect --help`.

    Raises:
        UserError: The data, the tokenizer, an option or a file can't be used.
        SystemExit: With --strict, status 1 for errors in the data.
    """
    screen = Screen(stderr=options.json == "-")
    check_files(options, ("report", "json"))
    check_split(options.source, options.split)
    if options.fix is not None:
        check_out(options.fix, Features({}), overwrite=options.overwrite)
        check_out(log_file(options.fix), Features({}), overwrite=options.overwrite)
    with quiet_libraries(screen):
        splits = (options.split,) if options.split else SPLITS
        rows = load_rows(options.source, "train", options.seed, field="DATASET", splits=splits)
        if options.fix is not None:
            check_out(options.fix, rows.features, overwrite=options.overwrite)
        held_out = (
            None
            if options.eval_data is None
            else load_rows(options.eval_data, "eval", options.seed, field="eval_data", splits=EVALUATION_SPLITS)
        )
        inspection = inspect_preferences(
            first_rows(rows, options.limit),
            options.tokenizer,
            eval_dataset=held_out,
            max_length=options.max_length,
            max_prompt_length=options.max_prompt_length,
            min_agreement=options.min_agreement,
            min_margin=options.min_margin,
            seed=options.seed,
            progress=screen,
        )
        inspection.facts |= {"data": options.source, "command": command_line(["hf-align", *options.arguments])}
        show_report(inspection, options, screen)
        if options.fix is not None:
            _fix(inspection, options, len(rows), screen)
    if options.strict and not inspection.ok:
        raise SystemExit(1)


def _fix(inspection: Inspection, options: argparse.Namespace, rows: int, screen: Screen) -> None:
    """Write the clean rows and the log, and say where they are."""
    try:
        log = inspection.write_fixed(options.fix, source=Source(options.source, rows), overwrite=options.overwrite)
    except OSError as error:
        raise UserError(f"fix: {options.fix} can't be written: {error.strerror or error}") from None
    fixed = inspection.to_json()["fixed"]
    screen.line(f"fixed: {options.fix} ({fixed['dropped']:,} dropped, {fixed['changed']:,} changed; log: {log})")
