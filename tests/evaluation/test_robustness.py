"""Changes that keep the meaning, and what they do to accuracy and scores."""

import re
from typing import Any

import numpy as np
import pytest

from hf_align.data.comparison_rows import read_comparisons
from hf_align.errors import UserError
from hf_align.evaluation.changes import CHANGES, changed
from hf_align.evaluation.robustness import measure_robustness
from hf_align.evaluation.scorers import scorer_of
from hf_align.progress import Silent
from hf_align.statistics import Resampling

TEXT = 'It is "good", I do not doubt that... a film - really - for everyone, and worth the money. See it!'


def test_changes_by_hand() -> None:
    expected = {
        "lower_case": TEXT.replace("I", "i").replace("S", "s"),
        "double_spaces": TEXT.replace(" ", "  "),
        "spaces_around": f"  {TEXT}  ",
        "no_break_spaces": TEXT.replace(" ", "\u00a0"),
        "line_breaks": (
            'It is "good",\nI do not doubt that...\na film - really - for everyone,\nand worth the money.\nSee it!'
        ),
        "in_quotes": f'"{TEXT}"',
        "quoted_lines": f"> {TEXT}",
        "no_punctuation": re.sub(r"\.{3}|[,.!]", "", TEXT),
        "contractions": TEXT.replace("It is", "It's").replace("do not", "don't"),
        "typographic": (
            "It is \u201cgood\u201d, I do not doubt that\u2026 a film \u2013 really \u2013 for everyone, and worth the "
            "money. See it!"
        ),
        "tail_cut": TEXT.removesuffix(" See it!"),
    }
    for name, text in expected.items():
        assert changed([TEXT], name) == [text], name
    assert changed(["I don't"], "contractions") == ["I do not"]


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_changes_a_text_the_same_way_each_time_and_keeps_its_words(name: str) -> None:
    (new,) = changed([TEXT], name, seed=3)
    assert new != TEXT and changed(["other", TEXT], name, seed=3)[1] == new
    letters = {"".join(filter(str.isalnum, text.lower())) for text in (TEXT, new)}
    if name not in ("letters_swapped", "letters_dropped", "fillers", "contractions", "polite_start", "polite_end"):
        short, long = sorted(letters, key=len)[0], sorted(letters, key=len)[-1]
        assert long.startswith(short) and len(long) - len(short) < 0.1 * len(long)
    assert all(isinstance(text, str) for text in changed(["", "a", "!!", "one two"], name))


def test_typos_touch_a_tenth_of_the_words() -> None:
    text = " ".join(["word"] * 50)
    swapped = changed([text], "letters_swapped")[0].split()
    assert sum(word != "word" for word in swapped) == 5
    assert {tuple(sorted(word)) for word in swapped} == {tuple(sorted("word"))}
    dropped = changed([text], "letters_dropped")[0].split()
    assert sorted(map(len, dropped)) == [3] * 5 + [4] * 45
    assert changed([text], "letters_dropped", seed=1) != changed([text], "letters_dropped", seed=2)


def _measure(rows: list[dict[str, Any]], score: Any, **more: Any) -> dict[str, Any]:
    data = read_comparisons(rows)
    scorer = scorer_of(score)
    scores = np.asarray(scorer([t.prompt for t in data.texts], [t.text for t in data.texts], []))[data.text_of]
    resampling = Resampling(data.units, resamples=50)
    return measure_robustness(data, scores, scorer, resampling, progress=Silent(), **more)


def test_drops_and_shifts_by_hand() -> None:
    # Score: number of capitals. The chosen has two, the rejected one.
    rows = [{"prompt": f"p{n}", "chosen": f"A Good one {n}", "rejected": f"A bad one {n}"} for n in range(4)]
    rows[3] = {"prompt": "p3", "chosen": "a plain one", "rejected": "A bad one"}

    def score(prompts: list[str], responses: list[str]) -> list[float]:
        return [float(sum(map(str.isupper, response))) for response in responses]

    figures = _measure(
        rows, score, changes=["lower_case", "spaces_around"], paraphrase=lambda texts: ["X"] * len(texts)
    )
    assert (figures["texts"], figures["pairs"], figures["accuracy"]) == (8, 4, 0.75)
    lower, around, paraphrase = figures["changes"]
    # All in lower case all scores are 0: half of four pairs. Only the better: 0 < 1 four times; only the worse: 2 > 0
    # three times, and 0 = 0.
    assert (lower["name"], lower["unchanged"], lower["accuracy"], lower["drop"]) == ("lower_case", 1, 0.5, 0.25)
    assert lower["one_sided_drop"] == pytest.approx(0.75 - (0 + 3.5 / 4) / 2)
    deviation = np.std([2, 1, 2, 1, 2, 1, 0, 1])
    assert lower["shift"] == pytest.approx(-10 / 8 / deviation) and lower["absolute_shift"] == pytest.approx(
        10 / 8 / deviation
    )
    assert (around["unchanged"], around["drop"], around["shift"]) == (0, 0.0, 0.0)
    assert (paraphrase["name"], paraphrase["accuracy"]) == ("paraphrase", 0.5)
    assert figures["worst"] == "lower_case" and figures["mean_drop"] == pytest.approx(0.5 / 3)
    assert [(layout["name"], layout["largest_difference"]) for layout in figures["layouts"]] == [("alone", 0.0)]


def test_only_the_last_message_s_text_changes_and_equal_texts_are_not_scored_again() -> None:
    seen: list[Any] = []

    class Model:
        def score(self, prompts: list[Any], responses: list[Any]) -> list[float]:
            seen.extend(zip(prompts, responses, strict=True))
            return [0.0] * len(responses)

    turns = [{"role": "assistant", "content": "Call", "tool_calls": None}, {"role": "user", "content": "Go ON"}]
    chosen = [*turns, {"role": "assistant", "content": "Yes", "thinking": "Hm"}]
    rows = [{"prompt": [{"role": "user", "content": "Hi"}], "chosen": chosen, "rejected": "no"}]
    rows[0]["rejected"] = [{"role": "assistant", "content": "no"}]
    figures = _measure(rows, Model(), changes=["lower_case"])
    assert figures["changes"][0]["unchanged"] == 1 and figures["changes"][0]["shift"] is None
    prompt, response = seen[2]
    assert (prompt, response[1]["content"]) == (rows[0]["prompt"], "Go ON")
    assert response[2] == {"role": "assistant", "content": "yes", "thinking": "Hm"}
    assert len(seen) == 2 + 1 + 2  # as they are, the changed one, and each alone


def test_a_sample_of_prompts_is_changed_where_there_are_many_texts() -> None:
    rows = [{"prompt": f"p{n}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(30)]
    figures = _measure(rows, lambda prompts, responses: [1.0] * len(responses), changes=["upper_case"], most_texts=10)
    assert (figures["texts"], figures["pairs"]) == (10, 5)


def test_the_layouts_are_scored_with_padding_on_the_other_side() -> None:
    class Model:
        class tokenizer:
            padding_side = "right"

        def score(self, prompts: list[str], responses: list[str]) -> list[float]:
            return [1.0 + (self.tokenizer.padding_side == "left") + (len(responses) == 1) * 2 for _ in responses]

    model = Model()
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}]
    layouts = _measure(rows, model, changes=[], model=model)["layouts"]
    assert layouts == [
        {"name": "alone", "texts": 2, "largest_difference": 2.0},
        {"name": "padding_side", "texts": 2, "largest_difference": 1.0},
    ]
    assert Model.tokenizer.padding_side == "right" and model.tokenizer.padding_side == "right"


def test_what_cannot_change_texts_is_refused() -> None:
    with pytest.raises(UserError, match="changes has 'shout'; use some of letters_swapped"):
        changed(["a"], "shout")
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}]
    with pytest.raises(UserError, match="paraphrase got 2 texts; return one text for each"):
        _measure(rows, lambda prompts, responses: [1.0] * len(responses), changes=[], paraphrase=lambda texts: ["a"])
