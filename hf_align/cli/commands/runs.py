"""`hf-align runs`: recorded runs, listed, compared or drawn."""

import argparse
from typing import Any

from hf_align.cli.console import Screen, print_json
from hf_align.errors import UserError
from hf_align.files import check_file, finite, write_text
from hf_align.report.runs import compare_runs, list_runs, render_runs, shown
from hf_align.tracking import Run, find_records, read_record
from hf_align.tracking.compare import figure_of, headline


def show_runs(options: argparse.Namespace) -> None:
    """List the runs recorded in and below folders; compare them, or write a page with their curves.

    Args:
        options: Parsed arguments: `folders`, `metric`, `algorithm`, `compare`, `report`, `json`.

    Raises:
        UserError: There is no such folder, no run or no such metric in it, or the page can't be written.
    """
    metrics = options.metric or []
    if options.report is not None:
        check_file(options.report, "report")
    runs, unreadable = _read(options)
    if not runs:
        which = "run" if options.algorithm is None else f"run of {options.algorithm}"
        raise UserError(unreadable[0] if unreadable else f"no {which} is recorded in {', '.join(options.folders)}")
    for metric in metrics:
        if not any(run.metrics(metric) for run in runs):
            names = dict.fromkeys(name.partition("/")[2] for run in runs for name in run.names)
            raise UserError(f"--metric: no run has {metric}; there is {', '.join(names)}")
    screen = Screen(stderr=options.json)
    for problem in unreadable:
        screen.line(f"left out: {problem}", "yellow")
    if options.json:
        print_json(finite([_facts(run, metrics) for run in runs]), default=str)
    elif options.compare:
        for table in compare_runs(runs, metrics):
            screen.table(table.title, table.columns, table.rows)
            screen.line("")
    else:
        listed = list_runs(runs, metrics)
        screen.table("", listed.columns, listed.rows)
    if options.report is not None:
        write_text(options.report, render_runs(runs, metrics))
        screen.line(f"report: {options.report}")


def _read(options: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """The runs by start, and what is wrong with records that can't be read."""
    runs: list[Run] = []
    unreadable = []
    for file in find_records(*options.folders):
        try:
            runs += [run for run in read_record(file) if options.algorithm in (None, run.algorithm)]
        except UserError as error:
            unreadable.append(str(error))
    return sorted(runs, key=lambda run: run.started), unreadable


def _facts(run: Run, metrics: list[str]) -> dict[str, Any]:
    result = headline(run)
    return {
        "folder": str(run.folder),
        **{name: getattr(run, name) for name in ("id", "algorithm", "status", "started", "ended", "steps")},
        "result": None if result is None else {"metric": result.name, "shown": shown(result), **_point(result)},
        "metrics": {name: _point(figure_of(run, name)) for name in metrics or [n.partition("/")[2] for n in run.names]},
        **{name: getattr(run, name) for name in ("config", "data", "base")},
        "sessions": [
            {**{name: getattr(s, name) for name in ("stage", "status", "from_step", "started", "ended")}}
            | {name: s.facts.get(name) for name in ("versions", "git", "command", "host")}
            for s in run.sessions
        ],
        "checkpoints": [
            {"folder": str(c.folder), "step": c.step, "stage": c.stage, "parts": c.parts, "exists": c.exists}
            for c in run.checkpoints
        ],
    }


def _point(figure: Any) -> dict[str, Any]:
    point = figure.point
    return {} if point is None else {"value": point.value, "step": point.step, "best": figure.is_best}
