"""Losses as pure functions: tensors in, tensors out, computed in fp32.

Preference and reward losses return one value a row (`[B]`): weighting and reduction belong to the trainer.
Policy, value and REINFORCE losses return the mean over the mask, a scalar.
"""

from hf_align.losses.batch import PreferenceBatch
from hf_align.losses.contrastive import contrastive_loss
from hf_align.losses.kl import estimate_kl, full_kl
from hf_align.losses.listwise import plackett_luce_loss
from hf_align.losses.logprobs import response_logps
from hf_align.losses.pairwise import bradley_terry_loss, ranking_loss
from hf_align.losses.policy import entropy_from_logits, ppo_clip_loss, reinforce_loss, value_loss
from hf_align.losses.preference import dpo_loss, ipo_loss
from hf_align.losses.registry import PREFERENCE_LOSSES, PreferenceLoss
from hf_align.losses.tasks import task_loss

__all__ = [
    "PREFERENCE_LOSSES",
    "PreferenceBatch",
    "PreferenceLoss",
    "bradley_terry_loss",
    "contrastive_loss",
    "dpo_loss",
    "entropy_from_logits",
    "estimate_kl",
    "full_kl",
    "ipo_loss",
    "plackett_luce_loss",
    "ppo_clip_loss",
    "ranking_loss",
    "reinforce_loss",
    "response_logps",
    "task_loss",
    "value_loss",
]
