"""`hf-align evaluate judge`: the report on a judge, in the terminal, as JSON and as one page."""

import argparse

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.cli.report_files import check_files, first_rows, people_rows, show_report
from hf_align.experiments.judges import read_judge
from hf_align.feedback.judges.measure import check_settings, measure_judge
from hf_align.tracking.facts import command_line


def run_judge(options: argparse.Namespace) -> None:
    """Measure a judge and print the report.

    Args:
        options: Parsed arguments; see `hf-align evaluate judge --help`.

    Raises:
        UserError: The judge, the data, an option or a file can't be used.
    """
    screen = Screen(stderr=options.json == "-")
    check_files(options, ("report", "json"))
    counts = {name: getattr(options, name) for name in ("max_pairs", "again", "resamples", "seed")}
    check_settings(options.gaps, **counts)
    with quiet_libraries(screen):
        judge = read_judge(options.judge)  # loaded when it is first asked, after the rows were read
        report = measure_judge(
            judge,
            first_rows(people_rows(options), options.limit),
            own=options.own,
            gaps=options.gaps,
            max_pairs=options.max_pairs,
            again=options.again,
            resamples=options.resamples,
            seed=options.seed,
            progress=screen,
        )
    report.facts |= {"data": options.data, "command": command_line(["hf-align", *options.arguments])}
    show_report(report, options, screen)
