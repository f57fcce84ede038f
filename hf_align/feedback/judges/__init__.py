"""Judges of pairs of responses: rewards, functions, language models and endpoints."""

from typing import TYPE_CHECKING

from hf_align.lazy import lazy_names

if TYPE_CHECKING:
    from hf_align.feedback.judges.function import FunctionJudge
    from hf_align.feedback.judges.reward import RewardJudge

__all__ = ["FunctionJudge", "RewardJudge"]

__getattr__, __dir__ = lazy_names(__name__, {"function": ("FunctionJudge",), "reward": ("RewardJudge",)})
