"""The sections of an inspection: what was found in each, with figures. The terminal and the page show the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_align.numbers import plural
from hf_align.report.figures import Metrics, decimal, ends, percent
from hf_align.report.sections import Grade, Section, Table
from hf_align.report.verdict import Verdict

TITLES = {
    "size": "Size and lengths",
    "defects": "Defects of single rows",
    "duplicates": "Duplicates",
    "contradictions": "Contradictions",
    "splits": "Splits and contamination",
    "agreement": "Agreement of people",
    "margins": "Margins, length and style",
}
"""Headings by key, in the page's order."""
SHOWN_ROWS = 20
"""Row numbers shown of a finding; the JSON has all."""
GRADES: dict[str, Grade] = {"error": "bad", "warning": "fair", "note": "good"}
"""How the worst finding of a section grades it; without findings it is good."""


def sections_of(inspection: Metrics) -> list[Section]:
    """The sections.

    Args:
        inspection: `Inspection.to_json()`.
    """
    return [_section(key, inspection) for key in TITLES if key in inspection["metrics"]]


def findings_of(inspection: Metrics, key: str) -> list[dict[str, Any]]:
    """The findings of a section, in their order."""
    return [finding for finding in inspection["findings"] if finding["section"] == key]


def _section(key: str, inspection: Metrics) -> Section:
    findings = findings_of(inspection, key)
    shown = BUILDERS[key](inspection["metrics"][key]) if key in BUILDERS else Shown()
    if shown.unchecked and not findings:
        return Section(shown.unchecked, key=key, title=TITLES[key], empty=True)
    worst = findings[0]["severity"] if findings else "note"
    found = f"Found: {say_counts(findings)}." if findings else "Nothing found."
    return Section(
        f"{shown.said} {found}".lstrip(),
        GRADES[worst],
        shown.figure,
        shown.tables,
        shown.note,
        label=say_counts(findings, worst),
        key=key,
        title=TITLES[key],
    )


@dataclass(frozen=True)
class Shown:
    """What a section shows besides its findings.

    Attributes:
        said: A sentence with the main figures.
        figure: The main figure.
        tables: Its tables.
        note: How it was measured.
        unchecked: Why there was nothing to check, if so.
    """

    said: str = ""
    figure: str = ""
    tables: Sequence[Table] = ()
    note: str = ""
    unchecked: str = ""


def _size(figures: Metrics) -> Shown:
    lengths = {name: each for name, each in (figures.get("lengths") or {}).items() if each}
    if not lengths:
        return Shown()
    unit = figures["unit"]
    quantiles = [name for name in next(iter(lengths.values())) if name != "mean"]
    tables = [
        Table((unit, *quantiles), [[name, *(f"{each[q]:,.0f}" for q in quantiles)] for name, each in lengths.items()]),
        Table(
            ("column", "type", "empty"),
            [[each["name"], each["type"], percent(each["nulls"])] for each in figures["columns"]],
        ),
    ]
    middle = {name: f"{each['50%']:,.0f}" for name, each in lengths.items() if not name.startswith("prompt and")}
    figure = ", ".join(f"{name} {value}" for name, value in middle.items())
    said = f"Half of the rows have at most so many {unit}: {figure}."
    if cut := figures.get("truncation"):
        limits = " and ".join(f"{name} {cut[name]:,}" for name in ("max_length", "max_prompt_length") if cut[name])
        said += (
            f" With {limits} the prompt is cut in {plural(cut['prompt_cut'], 'row')} and a response in "
            f"{plural(cut['response_cut'], 'row')}."
        )
    return Shown(said, tables=tables)


def _defects(figures: Metrics) -> Shown:
    ends = figures.get("ends") or {}
    if ends.get("proper_ends") is None:
        return Shown()
    return Shown(f"{percent(ends['proper_ends'])} of the responses end properly.")


def _duplicates(figures: Metrics) -> Shown:
    if "prompts" not in figures:
        return Shown()
    levels = {
        "rows of a repeated prompt": figures["rows_of_repeated_prompts"],
        "duplicate pairs": figures["duplicate_pairs"],
        "swapped duplicates": figures["swapped_pairs"],
        "rows of contradicted pairs": figures["rows_of_contradicted_pairs"],
        "responses under many prompts": figures["responses_under_many_prompts"],
    }
    rows = [[name, f"{count:,}"] for name, count in levels.items()]
    return Shown(f"{plural(figures['prompts'], 'distinct prompt')}.", tables=[Table(("level", "exact"), rows)])


def _splits(figures: Metrics) -> Shown:
    if "eval_prompts" not in figures:
        return Shown(unchecked="Not checked: give the evaluation set (--eval-data, eval_dataset) to compare with it.")
    return Shown(
        f"{figures['shared_prompts']:,} of the evaluation set's {plural(figures['eval_prompts'], 'prompt')} stand in "
        "this data, too."
    )


def _contradictions(figures: Metrics) -> Shown:
    scores = figures.get("scores") or {}
    rows = [
        [
            name,
            f"{each['pairs']:,}",
            percent(each["agree"] / each["pairs"]) if each["pairs"] else "undefined",
            decimal(each["length_correlation"]),
            *(decimal(each[end], 3) for end in ("min", "median", "max")),
        ]
        for name, each in scores.items()
    ]
    columns = ("score column", "pairs", "better is higher", "r with length", "min", "median", "max")
    return Shown(tables=[Table(columns, rows)] if rows else ())


def _agreement(figures: Metrics) -> Shown:
    if figures.get("source") is None:
        return Shown(unchecked=f"Not checked: {figures['reason']}." if figures.get("reason") else "")
    tables = []
    groups = [
        (f"{name} {value}", part)
        for name, parts in (figures.get("groups") or {}).items()
        for value, part in parts.items()
        if isinstance(part, Mapping)
    ]
    if groups:
        rows = [[name, _alpha(part), percent(part["raw"]), f"{part['units']:,}"] for name, part in groups]
        tables.append(Table(("group", "alpha", "raw", "units"), rows))
    if annotators := figures.get("annotators"):
        rows = [
            [name, decimal(each["alpha"]), percent(each["raw"]), f"{each['values']:,}"]
            for name, each in annotators.items()
        ]
        tables.append(Table(("annotator against the others", "alpha", "raw", "answers"), rows))
    said = (
        f"By {figures['source']}."
        if figures.get("mean") is None
        else (
            f"Two people agree in {percent(figures['mean'])} of the cases ({plural(figures['rows'], 'row')}, "
            f"by {figures['source']})."
        )
    )
    figure = "" if figures.get("alpha") is None else f"alpha {_alpha(figures)}"
    said += f" Krippendorff's {figure.replace('alpha', 'alpha is', 1)}." if figure else ""
    note = f"Agreement of a row: {figures['how']}." if "how" in figures else ""
    if figure:
        note += (
            f" Alpha: {figures['level']} level; 1 is full agreement, 0 that of chance; 95% bootstrap "
            f"interval over {plural(figures['units'], 'unit')}."
        )
    elif figures.get("reason"):
        note += f" No alpha: {figures['reason'].removeprefix('alpha is undefined: ')}."
    return Shown(said, figure, tables, note.lstrip())


def _alpha(figures: Metrics) -> str:
    return f"{decimal(figures['alpha'])} {ends(figures['interval'])}".rstrip()


def _margins(figures: Metrics) -> Shown:
    margins, length = figures.get("margins"), figures.get("length")
    parts, tables = [], []
    if margins:
        low, median, high = margins["quartiles"]
        parts.append(
            f"Half of the margins ({margins['source']}) lie between {low:.3g} and {high:.3g}, with the median "
            f"{median:.3g}."
        )
    if length and not length["pairs"]:
        parts.append("The better and the worse response are equally long in every pair.")
    elif length:
        parts.append(
            f"The longer response is the better one in {percent(length['longer_better'])} "
            f"{ends(length['interval'], 100, 1)} of {plural(length['pairs'], 'pair')}.".replace("  ", " ")
        )
    style = {name: each for name, each in (figures.get("style") or {}).items() if each["better"] or each["worse"]}
    if style:
        rows = [
            [name, percent(each["better"]), percent(each["worse"]), "yes" if each["differs"] else "no"]
            for name, each in style.items()
        ]
        tables.append(Table(("share of responses with", "better", "worse", "differ"), rows))
    scripts = (figures.get("scripts") or {}).get("responses") or {}
    if len(scripts) > 1:
        tables.append(Table(("script", "responses"), [[name, f"{count:,}"] for name, count in scripts.items()]))
    figure = f"median margin {margins['quartiles'][1]:.3g}" if margins else ""
    note = "Differ: sign test with Holm's correction, 5% for all together." if style else ""
    return Shown(" ".join(parts), figure, tables, note)


BUILDERS: Mapping[str, Callable[[Metrics], Shown]] = {
    "size": _size,
    "defects": _defects,
    "duplicates": _duplicates,
    "contradictions": _contradictions,
    "splits": _splits,
    "agreement": _agreement,
    "margins": _margins,
}


def say_counts(findings: Sequence[Metrics], only: str | None = None) -> str:
    """Such as "2 errors, 1 warning in 34 rows"; of one severity such as "2 errors", "fine" for none."""
    counts = {name: sum(each["severity"] == name for each in findings) for name in ("error", "warning", "note")}
    if only is not None:
        return plural(counts[only], only) if counts[only] else "fine"
    rows = {row for each in findings for row in each["rows"]}
    said = ", ".join(plural(count, name) for name, count in counts.items() if count)
    return f"{said} in {plural(len(rows), 'row')}" if rows else said


def rows_with(inspection: Metrics, severity: str) -> set[int]:
    """Numbers of the rows with a finding of a severity."""
    return {row for each in inspection["findings"] if each["severity"] == severity for row in each["rows"]}


def rows_text(finding: Metrics) -> str:
    """A finding's row numbers, the first of them if there are many; "" for the whole data set."""
    rows = finding["rows"]
    shown = ", ".join(map(str, rows[:SHOWN_ROWS]))
    left = len(rows) - SHOWN_ROWS
    return f"{shown} and {left:,} more" if left > 0 else shown


def verdict_of(inspection: Metrics) -> Verdict:
    """Whether to train on the data as it is."""
    counts, fixed, rows = inspection["counts"], inspection["fixed"], inspection["facts"]["rows"]
    bad = rows_with(inspection, "error")
    parts = [f"{fixed['dropped']:,} of {plural(rows, 'row')} dropped"] * bool(fixed["dropped"])
    parts += [f"{fixed['changed']:,} repaired"] * bool(fixed["changed"])
    repair = f"A fix is at hand: {' and '.join(parts)}." if parts else ""
    if counts["error"]:
        where = f" in {len(bad):,} of {plural(rows, 'row')}" if bad else ""
        return Verdict("bad", f"Not yet: {plural(counts['error'], 'error')}{where}.", repair)
    if counts["warning"]:
        return Verdict("fair", f"With care: no error, {plural(counts['warning'], 'warning')} to look at.", repair)
    return Verdict("good", "Yes: nothing that speaks against training on it.", repair)


def shown_facts(facts: Metrics) -> list[tuple[str, str]]:
    """(label, text) of the facts that stand above the sections."""
    limits = [
        f"{facts[name]:,} tokens of {what}"
        for name, what in (("max_length", "prompt and response"), ("max_prompt_length", "prompt"))
        if facts[name] is not None
    ]
    shown = {
        "data": facts.get("data"),
        "rows": f"{plural(facts['rows'], facts['layout'].removesuffix('s'))}: {', '.join(facts['columns'])}",
        "converted": facts["converted"] and f"{facts['converted']}. Row numbers are those of the converted rows.",
        "tokenizer": facts["tokenizer"],
        "limits": ", ".join(limits),
        "held out": "" if facts["eval_rows"] is None else plural(facts["eval_rows"], "row"),
        "versions": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
        "command": facts.get("command"),
    }
    return [(label, str(text)) for label, text in shown.items() if text]
