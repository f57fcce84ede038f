import math

import numpy as np
import pytest

from hf_align.evaluation.diversity import distinct_n, measure_diversity, repeated_share
from hf_align.statistics import Resampling, wilson_interval


def test_distinct_2_by_hand() -> None:
    # a b, b c | A b, b d: three different ones of four.
    assert distinct_n(["a b c", "A b d"]) == pytest.approx(3 / 4)
    assert distinct_n(["one", ""]) != distinct_n(["one", ""])  # NaN: there is no bigram


def test_repetition_within_a_response_by_hand() -> None:
    # Triples of "a b a b a": aba, bab, aba: one of three stood there before.
    assert repeated_share("a b A b a") == pytest.approx(1 / 3)
    texts = ["a b a b a", "one two", "c d e"]
    figures = measure_diversity(texts, Resampling(3, resamples=50), np.arange(3))
    assert figures["self_repetition"] == pytest.approx(1 / 6), "a text of two words has no triple"
    assert (figures["distinct_1"], figures["words"]) == (pytest.approx(7 / 10), 10)
    assert figures["distinct_3"] == pytest.approx(3 / 4)


def test_no_repetition_in_a_few_responses_is_not_none_for_sure() -> None:
    figures = measure_diversity(["a b c", "d e f", "g h"], Resampling(3, resamples=50), np.arange(3))
    assert figures["self_repetition"] == 0.0
    assert figures["self_repetition_interval"] == list(wilson_interval(0.0, 2)), "the text of two words says nothing"
    none = measure_diversity(["a b"], Resampling(1, resamples=50), np.arange(1))
    assert math.isnan(none["self_repetition"])
