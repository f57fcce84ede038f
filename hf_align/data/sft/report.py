"""What a preparation changed and dropped, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from textwrap import shorten
from typing import Any, NamedTuple

from hf_align.errors import UserError
from hf_align.files import write_json, write_text

SFT_REPORT = "_sft_report.json"
"""The report's file in the folder of a model that was trained on the rows. It quotes rows: Trainer's pushes leave out
what begins with an underscore, and ours have a list of what they take."""
SHOWN = 100
"""Characters of a row's text in the report."""
SHOWN_ROWS = 5
EXAMPLES = 3
REASONS = {
    "unreadable": "can't be read",
    "empty": "empty after cleaning",
    "contaminated": "the evaluation set has it",
    "duplicate": "a row says the same",
    "quality": "quality below the limit",
    "near_duplicate": "a better row says almost the same",
    "balance": "its category has enough",
}
"""Why rows are dropped, in the order in which it is looked at."""


class Place(NamedTuple):
    """A row's place: the name of its data set and its number there, from 0."""

    dataset: str
    row: int

    def __str__(self) -> str:
        return f"{self.dataset} row {self.row}"


@dataclass(frozen=True)
class Dropped:
    """A dropped row.

    Attributes:
        place: Where it stood.
        reason: A key of `REASONS`.
        detail: More about it: what can't be read, the lowest part of its quality, the row that stays.
        text: The beginning of its text.
    """

    place: Place
    reason: str
    detail: str
    text: str


@dataclass
class SFTReport:
    """What `prepare_sft` did; an empty one is filled by it.

    Attributes:
        layouts: The layout of each data set, by name.
        rows: Its number of rows.
        kept: Number of them that are left.
        changed: Places of changed rows that are left, by what was changed.
        dropped: Every dropped row.
        quality: Lowest, mean and highest `quality_score` of the rows that are left.
        options: The preparation's settings.
        fingerprint: Hash of the prepared rows.

    Example:
        >>> from hf_align.data import prepare_sft
        >>> from hf_align.data import SFTReport
        >>> rows = [{"question": "Which film?", "answer": text} for text in ("A good one.", "A good one. ", "")]
        >>> report = SFTReport()
        >>> len(prepare_sft(rows, report=report))
        1
        >>> [(each.place.row, each.reason, each.detail) for each in report.dropped]
        [(1, 'duplicate', 'dataset row 0 stays'), (2, 'unreadable', 'an empty answer')]
    """

    layouts: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    changed: dict[str, list[Place]] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    quality: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def reasons(self) -> dict[str, int]:
        """Numbers of dropped rows by reason."""
        counts = Counter(each.reason for each in self.dropped)
        return {reason: counts[reason] for reason in REASONS if reason in counts}

    def sentence(self) -> str:
        """All of it in one sentence."""
        total, left = sum(self.rows.values()), sum(self.kept.values())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items())
        dropped = f"{total - left:,} dropped ({reasons})" if reasons else "none dropped"
        changed = len({place for places in self.changed.values() for place in places})
        return f"{total:,} rows, {dropped}, {changed:,} of the others cleaned"

    def table(self) -> list[list[str]]:
        """Rows of a table: what happened, how many rows, which ones."""
        lines = [["rows", f"{sum(self.rows.values()):,}", _sources(self.rows)]]
        for kind, places in self.changed.items():
            lines.append([f"cleaned: {kind}", f"{len(places):,}", _listed(places)])
        for reason, count in self.reasons.items():
            places = [each.place for each in self.dropped if each.reason == reason]
            lines.append([f"dropped: {REASONS[reason]}", f"{count:,}", _listed(places)])
        lines.append(["left", f"{sum(self.kept.values()):,}", _sources(self.kept)])
        if self.quality:
            lowest, mean, highest = (f"{self.quality[key]:.2f}" for key in ("lowest", "mean", "highest"))
            lines.append(["quality score, mean", mean, f"{lowest} to {highest}"])
        return lines

    def __str__(self) -> str:
        table = self.table()
        widths = [max(len(line[column]) for line in table) for column in (0, 1)]
        return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c}".rstrip() for a, b, c in table)

    def to_dict(self) -> dict[str, Any]:
        """Figures and every dropped row, as JSON has them."""
        return {
            "sources": {
                name: {"layout": self.layouts[name], "rows": rows, "kept": self.kept[name]}
                for name, rows in self.rows.items()
            },
            "rows": sum(self.rows.values()),
            "kept": sum(self.kept.values()),
            "reasons": self.reasons,
            "quality": self.quality,
            "options": self.options,
            "fingerprint": self.fingerprint,
            "changed": {kind: _by_source(places) for kind, places in self.changed.items()},
            "dropped": [
                {"dataset": each.place.dataset, "row": each.place.row, "reason": each.reason}
                | {"detail": each.detail, "text": each.text}
                for each in self.dropped
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write it to a file.

        Args:
            path: A .json file, with every dropped row; or .md, with some as examples.

        Raises:
            UserError: It has another suffix.
        """
        check_report_file(path)
        if Path(path).suffix.lower() == ".json":
            write_json(path, self.to_dict())
        else:
            write_text(path, self._markdown())

    def _markdown(self) -> str:
        lines = ["# Preparation of the demonstrations", "", f"{self.sentence()}.", "", "| | rows | which |"]
        lines += ["| --- | ---: | --- |", *(f"| {' | '.join(map(_cell, line))} |" for line in self.table())]
        for reason in self.reasons:
            lines += ["", f"## Dropped: {REASONS[reason]}", "", "| row | why | text |", "| --- | --- | --- |"]
            some = [each for each in self.dropped if each.reason == reason][:EXAMPLES]
            lines += [f"| {' | '.join(map(_cell, (str(each.place), each.detail, each.text)))} |" for each in some]
        return "\n".join(lines) + "\n"


def check_report_file(path: str | Path) -> None:
    """Refuse a report file of another format than .json and .md."""
    if Path(path).suffix.lower() not in (".json", ".md"):
        raise UserError(f"report: {path} is no .json or .md file; choose another name")


def summary(scores: Sequence[float]) -> dict[str, float]:
    """Lowest, mean and highest of the scores."""
    return {"lowest": min(scores), "mean": fmean(scores), "highest": max(scores)}


def shown(text: str) -> str:
    """The beginning of a text, on one line."""
    return shorten(text, SHOWN, placeholder="…") or text.strip()[:SHOWN]


def _sources(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) if len(counts) > 1 else ""


def _by_source(places: Iterable[Place]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for place in places:
        rows.setdefault(place.dataset, []).append(place.row)
    return rows


def _listed(places: Sequence[Place]) -> str:
    parts = [f"{name} {', '.join(map(str, rows))}" for name, rows in _by_source(places[:SHOWN_ROWS]).items()]
    return "; ".join(parts) + (", …" if len(places) > SHOWN_ROWS else "")


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
