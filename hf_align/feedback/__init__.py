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
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.constitution.config import ConstitutionConfig
from hf_align.feedback.constitution.principles import Constitution
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
    from hf_align.feedback.collection.annotators import FunctionAnnotator, JudgeAnnotator, RewardAnnotator
    from hf_align.feedback.collection.loop import collect
    from hf_align.feedback.collection.result import Collection
    from hf_align.feedback.constitution.made import apply_constitution
    from hf_align.feedback.judges.endpoint.judge import EndpointJudge
    from hf_align.feedback.judges.function import FunctionJudge
    from hf_align.feedback.judges.language_model import LanguageModelJudge
    from hf_align.feedback.judges.measure import measure_judge
    from hf_align.feedback.judges.report import JudgeReport
    from hf_align.feedback.judges.reward import RewardJudge
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
    "Constitution",
    "ConstitutionConfig",
    "EndpointJudge",
    "FunctionAnnotator",
    "FunctionJudge",
    "JudgeAnnotator",
    "JudgeReport",
    "LanguageModelJudge",
    "Lease",
    "PreferenceStore",
    "Progress",
    "Prompt",
    "Response",
    "RewardAnnotator",
    "RewardJudge",
    "Showing",
    "Task",
    "UndefinedAgreement",
    "Verdict",
    "aggregate_answers",
    "annotate",
    "apply_constitution",
    "collect",
    "dawid_skene",
    "judge_tasks",
    "krippendorff_alpha",
    "majority_vote",
    "measure_agreement",
    "measure_judge",
    "open_store",
    "weighted_vote",
]

# The loop, its annotators and judges load the model libraries, the page Gradio: the store's commands need neither.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "collection.annotators": ("FunctionAnnotator", "JudgeAnnotator", "RewardAnnotator"),
        "collection.loop": ("collect",),
        "collection.result": ("Collection",),
        "constitution.made": ("apply_constitution",),
        "judges.endpoint.judge": ("EndpointJudge",),
        "judges.function": ("FunctionJudge",),
        "judges.language_model": ("LanguageModelJudge",),
        "judges.measure": ("measure_judge",),
        "judges.report": ("JudgeReport",),
        "judges.reward": ("RewardJudge",),
        "page.serve": ("annotate",),
    },
)
