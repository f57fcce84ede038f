"""Rollouts: responses sampled from the policy in training."""

from hf_align.rollouts.engine import Engine, SamplingRequest
from hf_align.rollouts.generate import ENGINES, Response, sample_responses, stop_token_ids, warn_of_open_turns

__all__ = [
    "ENGINES",
    "Engine",
    "Response",
    "SamplingRequest",
    "sample_responses",
    "stop_token_ids",
    "warn_of_open_turns",
]
