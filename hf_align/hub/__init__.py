"""Models to and from the Hub: what of a folder is pushed, merged weights, and errors that say what to do."""

from hf_align.hub.push import PushedFolder, push_model
from hf_align.hub.staging import stage_checkpoint, stage_model
from hf_align.models.merging import merge_adapter

__all__ = ["PushedFolder", "merge_adapter", "push_model", "stage_checkpoint", "stage_model"]
