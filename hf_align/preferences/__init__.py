"""Preference data: turning comparisons and ratings into chosen/rejected pairs."""

from hf_align.preferences.convert import (
    ComparisonReport,
    RatingReport,
    comparisons_to_pairs,
    rated_pair,
    ratings_to_pairs,
)

__all__ = ["ComparisonReport", "RatingReport", "comparisons_to_pairs", "rated_pair", "ratings_to_pairs"]
