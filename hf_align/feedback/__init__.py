"""Preferences from people and models: a store, a loop that fills it, a page to answer on, and how far raters agree."""

from hf_align.data.agreement import Agreement, UndefinedAgreement, krippendorff_alpha, measure_agreement
from hf_align.feedback.aggregate import Aggregation, Verdict, judge_tasks, majority_vote, weighted_vote
from hf_align.feedback.collect.annotators import FunctionAnnotator, RewardAnnotator
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
    "Aggregation",
    "Agreement",
    "Annotator",
    "Answer",
    "FunctionAnnotator",
    "Lease",
    "PreferenceStore",
    "Progress",
    "Prompt",
    "Response",
    "RewardAnnotator",
    "Showing",
    "Task",
    "UndefinedAgreement",
    "Verdict",
    "judge_tasks",
    "krippendorff_alpha",
    "majority_vote",
    "measure_agreement",
    "weighted_vote",
]
