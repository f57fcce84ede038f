"""Preferences from people and models: how far raters agree."""

from hf_align.data.agreement import Agreement, UndefinedAgreement, krippendorff_alpha, measure_agreement

__all__ = ["Agreement", "UndefinedAgreement", "krippendorff_alpha", "measure_agreement"]
