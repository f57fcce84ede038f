"""The record of every run, `run.sqlite` in its folder: configs, data, versions, metrics and checkpoints.

Trainers write it (`RunRecord`), whatever `report_to` says; `read_runs`, `best_checkpoint` and `hf-align runs` read it.
"""

from hf_align.tracking.reader import (
    Checkpoint as Checkpoint,
    Point as Point,
    Run as Run,
    Session as Session,
    best_checkpoint as best_checkpoint,
    find_records as find_records,
    read_record as read_record,
    read_runs as read_runs,
)
from hf_align.tracking.writer import RunRecord as RunRecord, RunSession as RunSession

__all__ = [
    "Checkpoint",
    "Point",
    "Run",
    "RunRecord",
    "RunSession",
    "Session",
    "best_checkpoint",
    "find_records",
    "read_record",
    "read_runs",
]
