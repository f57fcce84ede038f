"""How good a reward model and a policy are, measured against people and against an independent judge."""

from hf_align.evaluation.policies import Continuation, compare_policies, sample_continuations, vader_scores
from hf_align.evaluation.ratings import pair_accuracy, rating_report

__all__ = [
    "Continuation",
    "compare_policies",
    "pair_accuracy",
    "rating_report",
    "sample_continuations",
    "vader_scores",
]
