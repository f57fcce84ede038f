"""Rollouts: responses sampled from the policy that is being trained."""

from hf_align.rollouts.generate import Response, sample_responses, stop_token_ids

__all__ = ["Response", "sample_responses", "stop_token_ids"]
