"""The table: every field of `TrainingArguments`, with what each trainer makes of it.

A test fails while a field of the installed transformers has no row. Adding one: a row in the file of its subject (`row`
in `cells.py`), and the test that tries it in `tests/trainers/arguments/test_table.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hf_align.trainers.arguments.cells import Row
from hf_align.trainers.arguments.data import DATA
from hf_align.trainers.arguments.evaluation import EVALUATION
from hf_align.trainers.arguments.learning import LEARNING
from hf_align.trainers.arguments.logs import LOGS
from hf_align.trainers.arguments.precision import PRECISION
from hf_align.trainers.arguments.processes import PROCESSES
from hf_align.trainers.arguments.saving import SAVING

SUBJECTS: Mapping[str, tuple[Row, ...]] = MappingProxyType(
    {
        "Optimizer, schedule and length": LEARNING,
        "Rows and batches": DATA,
        "Evaluations and the best model": EVALUATION,
        "Checkpoints and the Hub": SAVING,
        "Logs": LOGS,
        "Number formats, memory and speed": PRECISION,
        "Devices and processes": PROCESSES,
    }
)
"""Rows by subject, in the order of the docs page."""
TABLE: Mapping[str, Row] = MappingProxyType({row.name: row for rows in SUBJECTS.values() for row in rows})
"""Rows by their option's name."""
OF_RUN = tuple(name for name, row in TABLE.items() if row.of_run)
"""Options of a stage's config that a hybrid leaves to its own."""
