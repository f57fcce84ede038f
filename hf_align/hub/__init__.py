"""Pushing models to the Hub: selection of a folder's files, upload, and errors that say what to do."""

from hf_align.hub.push import PushedFolder, push_model
from hf_align.hub.staging import stage_checkpoint, stage_model

__all__ = ["PushedFolder", "push_model", "stage_checkpoint", "stage_model"]
