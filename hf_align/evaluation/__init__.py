"""Evaluation of reward models and policies: against people, and by an independent judge."""

from hf_align.evaluation.best_of import sample_best
from hf_align.evaluation.best_of_samples import Sampling
from hf_align.evaluation.continuations import Continuation, sample_continuations
from hf_align.evaluation.fronts import Front, front_of_policies, sweep_weights
from hf_align.evaluation.gao import GaoFit, fit_gao
from hf_align.evaluation.over_optimization import Course, best_of_n_course
from hf_align.evaluation.policies import compare_policies
from hf_align.evaluation.policy_report import policy_report
from hf_align.evaluation.ratings import pair_accuracy, rating_report
from hf_align.evaluation.report import PolicyReport, RewardReport
from hf_align.evaluation.reward_report import reward_report
from hf_align.evaluation.scored import Scored, score_dataset
from hf_align.report.remarks import Remark
from hf_align.rewards.vader import vader_scores

__all__ = [
    "Continuation",
    "Course",
    "Front",
    "GaoFit",
    "PolicyReport",
    "Remark",
    "RewardReport",
    "Sampling",
    "Scored",
    "best_of_n_course",
    "compare_policies",
    "fit_gao",
    "front_of_policies",
    "pair_accuracy",
    "policy_report",
    "rating_report",
    "reward_report",
    "sample_best",
    "sample_continuations",
    "score_dataset",
    "sweep_weights",
    "vader_scores",
]
