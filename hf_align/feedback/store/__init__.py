"""The preference store: a database of prompts, responses, tasks and answers."""

from hf_align.feedback.store.place import open_store
from hf_align.feedback.store.store import PreferenceStore

__all__ = ["PreferenceStore", "open_store"]
