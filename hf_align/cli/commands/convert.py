"""`hf-align convert`: preference data of any known layout to the pairs or rankings that trainers take."""

import argparse

from datasets import Features

from hf_align.cli.console import Screen, print_json, quiet_libraries, write_figures
from hf_align.cli.report_files import check_files, first_rows
from hf_align.data.layouts.conversion import convert_rows
from hf_align.data.sinks import check_out, write_rows
from hf_align.data.sources import check_split, load_rows
from hf_align.errors import UserError

SPLITS = ("train", "test", "validation", "eval")


def run_convert(options: argparse.Namespace) -> None:
    """Convert a data set, say what was recognised and left out, and write the result.

    Args:
        options: Parsed arguments; see `hf-align convert --help`.

    Raises:
        UserError: The data can't be read, its layout isn't known, or OUT can't be written.
    """
    screen = Screen(stderr=options.json == "-")
    check_files(options, ("json",))
    check_out(options.target, Features({}), overwrite=options.overwrite)
    check_split(options.source, options.split)
    with quiet_libraries(screen):
        rows = load_rows(
            options.source, "train", 0, field="DATASET", splits=(options.split,) if options.split else SPLITS
        )
        conversion = convert_rows(
            first_rows(rows, options.limit),
            ties=options.ties,
            min_gap=options.min_gap,
            as_pairs=options.pairs,
            layout=options.layout,
            progress=screen,
        )
        check_out(options.target, conversion.rows.features, overwrite=options.overwrite)
        try:
            write_rows(conversion.rows, options.target)
        except OSError as error:
            raise UserError(f"OUT: {options.target} can't be written: {error.strerror or error}") from None
    figures = conversion.figures() | {"out": options.target}
    if options.json == "-":
        print_json(figures)
        return
    screen.line(str(conversion))
    screen.line(f"written: {options.target} with the columns {', '.join(conversion.rows.column_names)}")
    if options.json is not None:
        write_figures(figures, options.json, screen)
