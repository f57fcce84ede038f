"""Several answers to a task as one verdict, and how good each annotator is."""

from hf_align.feedback.aggregate.verdicts import Method, Verdict, judge_tasks
from hf_align.feedback.aggregate.votes import Aggregation, majority_vote, weighted_vote

__all__ = ["Aggregation", "Method", "Verdict", "judge_tasks", "majority_vote", "weighted_vote"]
