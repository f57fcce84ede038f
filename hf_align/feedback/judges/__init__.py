"""Judges of pairs of responses: rewards, functions, language models and endpoints."""

from typing import TYPE_CHECKING

from hf_align.lazy import lazy_names

if TYPE_CHECKING:
    from hf_align.feedback.judges.endpoint.judge import EndpointJudge
    from hf_align.feedback.judges.function import FunctionJudge
    from hf_align.feedback.judges.language_model import LanguageModelJudge, PositionBias
    from hf_align.feedback.judges.measure import measure_judge
    from hf_align.feedback.judges.named import check_judge, open_judge
    from hf_align.feedback.judges.report import JudgeReport
    from hf_align.feedback.judges.reward import RewardJudge

__all__ = [
    "EndpointJudge",
    "FunctionJudge",
    "JudgeReport",
    "LanguageModelJudge",
    "PositionBias",
    "RewardJudge",
    "check_judge",
    "measure_judge",
    "open_judge",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "endpoint.judge": ("EndpointJudge",),
        "function": ("FunctionJudge",),
        "language_model": ("LanguageModelJudge", "PositionBias"),
        "measure": ("measure_judge",),
        "named": ("check_judge", "open_judge"),
        "report": ("JudgeReport",),
        "reward": ("RewardJudge",),
    },
)
