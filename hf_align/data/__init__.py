"""Data sets: reading and writing, converting, inspecting and augmenting pairs, demonstrations, embedded ratings."""

from hf_align.data.augment import augment
from hf_align.data.convert import (
    ComparisonReport,
    RatingReport,
    comparisons_to_pairs,
    rated_pair,
    ratings_to_pairs,
)
from hf_align.data.embedded.ratings import DOMAINS, SPLITS, Domain, Split, load_ratings
from hf_align.data.inspection.inspect import inspect_preferences
from hf_align.data.inspection.result import Inspection
from hf_align.data.layouts.conversion import to_preferences
from hf_align.data.sft.prepare import prepare_sft
from hf_align.data.sft.report import SFTReport

__all__ = [
    "DOMAINS",
    "SPLITS",
    "ComparisonReport",
    "Domain",
    "Inspection",
    "RatingReport",
    "SFTReport",
    "Split",
    "augment",
    "comparisons_to_pairs",
    "inspect_preferences",
    "load_ratings",
    "prepare_sft",
    "rated_pair",
    "ratings_to_pairs",
    "to_preferences",
]
