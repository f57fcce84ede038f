"""Several answers to a task as one verdict, and how good each annotator is."""

from hf_align.feedback.aggregate.dawid_skene import dawid_skene
from hf_align.feedback.aggregate.verdicts import Verdict, aggregate_answers, judge_tasks
from hf_align.feedback.aggregate.votes import Aggregation, AggregationMethod, majority_vote, weighted_vote

__all__ = [
    "Aggregation",
    "AggregationMethod",
    "Verdict",
    "aggregate_answers",
    "dawid_skene",
    "judge_tasks",
    "majority_vote",
    "weighted_vote",
]
