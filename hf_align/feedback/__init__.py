"""Preferences from people and models: a store, a loop that fills it, a page to answer on, and how far raters agree."""

from typing import TYPE_CHECKING

from hf_align.data.agreement import Agreement, UndefinedAgreement, krippendorff_alpha, measure_agreement
from hf_align.feedback.aggregate import (
    Aggregation,
    Verdict,
    aggregate_answers,
    dawid_skene,
    judge_tasks,
    majority_vote,
    weighted_vote,
)
from hf_align.feedback.collect.annotators import FunctionAnnotator, RewardAnnotator
from hf_align.feedback.collect.config import CollectionConfig
from hf_align.feedback.collect.loop import collect
from hf_align.feedback.collect.result import Collection
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
from hf_align.feedback.store import PreferenceStore, open_store
from hf_align.lazy import lazy_names

if TYPE_CHECKING:
    from hf_align.feedback.page.serve import annotate

__all__ = [
    "FIRST",
    "SECOND",
    "TIE",
    "Aggregation",
    "Agreement",
    "Annotator",
    "Answer",
    "Collection",
    "CollectionConfig",
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
    "aggregate_answers",
    "annotate",
    "collect",
    "dawid_skene",
    "judge_tasks",
    "krippendorff_alpha",
    "majority_vote",
    "measure_agreement",
    "open_store",
    "weighted_vote",
]

# The page needs Gradio, an optional package that takes a second to import.
__getattr__, __dir__ = lazy_names(__name__, {"page.serve": ("annotate",)})
