"""Pushing models and data sets to the Hub: selection of a folder's files, upload, and errors that say what to do."""

from hf_align.hub.data import is_data_folder, push_dataset
from hf_align.hub.push import PushedFolder, push_model
from hf_align.hub.staging import stage_checkpoint, stage_model

__all__ = ["PushedFolder", "is_data_folder", "push_dataset", "push_model", "stage_checkpoint", "stage_model"]
