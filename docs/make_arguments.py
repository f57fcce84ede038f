"""Write docs/reference/training-arguments.md from the table of Trainer's options (`make docs`); a test checks it."""

from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from hf_align.algorithms import ALGORITHMS
from hf_align.fields import as_written
from hf_align.trainers.arguments.cells import COLUMNS, Cell, Column, Row
from hf_align.trainers.arguments.check import default_of
from hf_align.trainers.arguments.table import SUBJECTS

PAGE = Path(__file__).parent / "reference" / "training-arguments.md"
SIGNS = {"works": "yes", "differs": "differs", "refused": "no"}
CONFIGS: dict[Column, type[Any]] = {
    column: ALGORITHMS.builtin[name].load()[1]
    for column, name in zip(COLUMNS, ("reward", "dpo", "ppo", "online-dpo", "sft"), strict=True)
}
INTRODUCTION = """\
# Trainer's own options

<!-- Written by `make docs` from the table in trainers/arguments: edit its rows there. -->

Every trainer here is a `transformers.Trainer`, and its config has all fields of `TrainingArguments` besides
[its own](options.md). This is what each trainer makes of each of them:

- **yes**: it does what it does in `Trainer`;
- **differs**: it means what the last column says;
- **no**: any value but the default is refused in one sentence before anything is loaded, with the reason that the last
  column gives.

The table is what the configs are checked by, and a test fails while the installed transformers has a field without a
row. What needs a GPU, several processes or another package is marked as *not tried* in this library's tests.

An ensemble's members are reward models. A hybrid's stages take the options of their algorithms; those marked *of the
run* are given to `HybridConfig` instead.
"""


def page() -> str:
    """Write the page: a table for each subject."""
    return INTRODUCTION + "".join(f"\n## {subject}\n\n{table(rows)}" for subject, rows in SUBJECTS.items())


def table(rows: tuple[Row, ...]) -> str:
    """Lay out the rows of a subject."""
    header = ["Option", "Default", *COLUMNS.values(), ""]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        signs = [SIGNS[cell.verdict] + ("*" if cell.values or cell.unless else "") for cell in row.cells.values()]
        lines.append([f"`{row.name}`", defaults(row.name), *signs, notes(row)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def defaults(name: str) -> str:
    """Trainer's default, and those of our configs where they differ."""
    of_trainer = default_of(TrainingArguments, name)
    ours: dict[str, list[str]] = {}
    for column, config in CONFIGS.items():
        if "." not in name and (default := default_of(config, name)) != of_trainer:
            ours.setdefault(shown(default), []).append(COLUMNS[column])
    changed = [
        f"{value} ({'all' if len(names) == len(COLUMNS) else ', '.join(names)})" for value, names in ours.items()
    ]
    return "; ".join([shown(of_trainer), *changed])


def shown(value: Any) -> str:
    """A default as code."""
    return f"`{as_written(value)!r}`"


def notes(row: Row) -> str:
    """What the row's cells say, with the trainers that it holds for where it isn't all."""
    said: dict[str, list[Column]] = {}
    for column, cell in row.cells.items():
        for text in words(cell):
            said.setdefault(text, []).append(column)
    parts = [
        text if len(columns) == len(COLUMNS) else f"{', '.join(COLUMNS[each] for each in columns)}: {text}"
        for text, columns in said.items()
    ]
    parts += ["Of the run."] if row.of_run else []
    parts += [f"*Not tried: it takes {row.untried}.*"] if row.untried else []
    return " ".join(parts).replace("|", "\\|")


def words(cell: Cell) -> list[str]:
    """Sentences of a cell: what it says, and which values or settings it refuses."""
    said = [f"{cell.words[0].upper()}{cell.words[1:].removesuffix('.')}."] if cell.words else []
    said += [f"`{value}` is refused: {reason}." for value, reason in cell.values.items()]
    if cell.unless is not None:
        about = str(cell.unless.__doc__)
        said.append(f"\\* Refused: {about.removeprefix('Refuse ').strip()}")
    return said


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}")
