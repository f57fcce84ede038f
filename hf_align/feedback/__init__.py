"""Preferences from people and models: a store, a loop that fills it, a page to answer on, and how far raters agree."""

from hf_align.data.agreement import Agreement, UndefinedAgreement, krippendorff_alpha, measure_agreement
from hf_align.feedback.records import (
    FIRST,
    SECOND,
    TIE,
    Annotator,
    Answer,
    Lease,
    Progress,
    Prompt,
    Response,
    Showing,
    Task,
)
from hf_align.feedback.store import PreferenceStore

__all__ = [
    "FIRST",
    "SECOND",
    "TIE",
    "Agreement",
    "Annotator",
    "Answer",
    "Lease",
    "PreferenceStore",
    "Progress",
    "Prompt",
    "Response",
    "Showing",
    "Task",
    "UndefinedAgreement",
    "krippendorff_alpha",
    "measure_agreement",
]
