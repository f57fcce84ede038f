"""Data sets: reading files, folders and Hub ids, converting to pairs, augmenting pairs, embedded ratings."""

from hf_align.data.augment import augment
from hf_align.data.convert import (
    ComparisonReport,
    RatingReport,
    comparisons_to_pairs,
    rated_pair,
    ratings_to_pairs,
)
from hf_align.data.embedded.ratings import DOMAINS, SPLITS, Domain, Split, load_ratings

__all__ = [
    "DOMAINS",
    "SPLITS",
    "ComparisonReport",
    "Domain",
    "RatingReport",
    "Split",
    "augment",
    "comparisons_to_pairs",
    "load_ratings",
    "rated_pair",
    "ratings_to_pairs",
]
