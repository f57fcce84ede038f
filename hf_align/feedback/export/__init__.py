"""Export of a preference store as a data set that trains, with a card."""

from hf_align.feedback.export.files import check_target, save_export
from hf_align.feedback.export.made import Export, export_preferences
from hf_align.feedback.export.options import ExportOptions

__all__ = ["Export", "ExportOptions", "check_target", "export_preferences", "save_export"]
