"""A benchmark's results as a page, as markdown and as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from hf_align.report.figures import decimal, percent
from hf_align.report.grid.charts import frontier_charts, gain_charts, learning_charts
from hf_align.report.grid.sentences import finding_sentences, measured
from hf_align.report.grid.tables import (
    comparison_table,
    cost_table,
    difference_table,
    flip_table,
    frontier_table,
    gap_table,
    main_dataset,
    quality_table,
    short_table,
)
from hf_align.report.render import render_page
from hf_align.report.section_text import fitting, table_lines, wrapped
from hf_align.report.sections import Table

Summary = Mapping[str, Any]
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
METHOD = (
    "A gain is a response's score minus that of the base's response to the same prompt with the same seed. Intervals "
    "are 95% intervals for other seeds and other prompts: the bootstrap's variances with whole seeds and with whole "
    "prompts drawn, added, and Student's t with Satterthwaite's degrees of freedom. With one seed, and of best-of-n, "
    "which trains nothing, they are over prompts alone. A reward model is trained once for each data set: no interval "
    "is for another one. A difference is real if its p-value, adjusted by Holm's method over all pairs of its data "
    "set, is at most .05, with at least two common seeds of what is trained."
)


def describe(summary: Summary) -> str:
    """What was measured, in a sentence or two."""
    facts, base = summary["facts"], summary["base"]
    budget = facts["budget"]
    limits = ", ".join(f"{name} {value}" for name, value in budget.items()) if isinstance(budget, Mapping) else budget
    parts = [f"By {measured(summary)}, on {facts['prompts']} held-out prompts."]
    if limits:
        parts.append(f"Budget of each run: {limits}.")
    of_base = [f"score {decimal(base['judge']['mean'], 3)}"] if base["judge"] else []
    of_base += [f"{decimal(base['length']['mean'], 1)} tokens"] if base["length"] else []
    of_base += [f"{percent(base['ended']['mean'], 0)} end by themselves"] if base["ended"] else []
    if of_base:
        parts.append(f"The base's responses: {', '.join(of_base)}.")
    return " ".join(parts)


def results_tables(dataset: Summary, summary: Summary) -> list[Table]:
    """The tables of one data set."""
    name = dataset["name"]
    tables = [
        replace(quality_table(dataset, summary), title=f"{name}: gains over the base"),
        replace(cost_table(dataset), title=f"{name}: time and memory"),
    ]
    if dataset["differences"]:
        tables.append(replace(difference_table(dataset), title=f"{name}: differences, response by response"))
    if dataset["frontier"]:
        tables.append(replace(frontier_table(dataset["frontier"]), title=f"{name}: gain at its KL"))
    return tables


def further_tables(summary: Summary) -> list[Table]:
    """What flipped labels cost, and runs without figures."""
    tables = [
        replace(flip_table(each), title=f"Lost to flipped labels: {each['clean']} minus {each['flipped']}")
        for each in summary["flips"]
        if each["algorithms"]
    ]
    return tables + ([replace(gap_table(summary), title="Runs without figures")] if summary["gaps"] else [])


def compared(summary: Summary) -> Table:
    """The comparison table with its title."""
    return replace(
        comparison_table(summary), title=f"What each takes and gives, measured on {main_dataset(summary)['name']}"
    )


def render_benchmark(summary: Summary) -> str:
    """Render the page.

    Args:
        summary: Summary of `hf_align.evaluation.grid.Results`.

    Returns:
        HTML; names are escaped.
    """
    return render_page(
        "grid.html.j2",
        about=describe(summary),
        sentences=finding_sentences(summary),
        gains=[
            *gain_charts(summary, "judge", "Judge's gain over the base, 95% intervals"),
            *gain_charts(summary, "win_rate", "Win rate over the base", origin=0.5),
            *gain_charts(summary, "length_controlled", "Win rate at equal length", origin=0.5),
        ],
        frontiers=[
            *frontier_charts(summary, "frontier", "judge's gain"),
            *frontier_charts(summary, "reward_frontier", "reward's gain"),
        ],
        comparison=compared(summary),
        datasets=[(each["name"], results_tables(each, summary)) for each in summary["datasets"]],
        further=further_tables(summary),
        learning=learning_charts(summary),
        remarks=summary["remarks"],
        method=METHOD,
    )


def benchmark_markdown(summary: Summary) -> str:
    """Sentences and tables as markdown."""
    lines = [describe(summary), "", *(f"- {_escaped(text)}" for text in finding_sentences(summary)), ""]
    tables = [table for each in summary["datasets"] for table in results_tables(each, summary)]
    for table in (*tables, *further_tables(summary), compared(summary)):
        lines += [f"### {table.title}", "", *_markdown_table(table), ""]
    lines += [f"- {_escaped(text)}" for text in summary["remarks"]]
    return "\n".join([*lines, METHOD, ""])


def _markdown_table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(table.columns)} |"
    yield f"| --- |{' ---: |' * (len(table.columns) - 1)}"
    for row in table.rows:
        yield f"| {' | '.join(map(_escaped, row))} |"


def _escaped(text: str) -> str:
    """Text of names and reasons that stays in its cell, with links to papers."""
    plain = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", plain)


def benchmark_text(summary: Summary, width: int) -> str:
    """What it shows for a terminal.

    Args:
        summary: As in `render_benchmark`.
        width: Characters of a line.
    """
    lines = wrapped(describe(summary), width)
    for dataset in summary["datasets"]:
        table = fitting(replace(short_table(dataset, summary), title=dataset["name"]), width)
        lines += ["", *table_lines(table, width, len(table.rows))]
    lines += ["", *(line for text in finding_sentences(summary) for line in wrapped(f"- {text}", width, "  "))]
    lines += [line for text in summary["remarks"] for line in wrapped(f"! {text}", width, "  ")]
    if gaps := summary["gaps"]:
        failed = sum(each["failed"] for each in gaps)
        lines += wrapped(f"! Runs without figures: {len(gaps)}, of which {failed} failed.", width, "  ")
    return "\n".join(lines)
