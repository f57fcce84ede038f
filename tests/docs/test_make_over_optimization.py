"""The page on over-optimisation shows the figures of its results file."""

import json

from docs.make_over_optimization import PAGE, PICTURE, RESULTS, page


def test_the_committed_page_is_current() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(results), "run `python -m docs.make_over_optimization`"
    assert PICTURE.exists()


def test_the_sentences_around_the_table_say_what_was_measured() -> None:
    noisy, clean = json.loads(RESULTS.read_text(encoding="utf-8"))["courses"].values()
    last, first = noisy["curve"][-1], noisy["curve"][0]
    gains = [(last[name] - first[name]) / noisy[f"{name}_sd"] for name in ("proxy", "judge")]
    assert [round(gain, 1) for gain in gains] == [3.8, 0.6]
    assert last["judge_interval"][0] <= first["judge_interval"][1], "the gain's interval reaches down to 0"
    assert clean["fit"]["turns"] and clean["fit"]["turning_interval"][1] > clean["fit"]["largest_kl"]
