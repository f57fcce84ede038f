"""Made preference pairs, compared with cases worked out by hand."""

import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hf_align.collators import check_preferences
from hf_align.data.augment import augment, count_made, refuse_augmented
from hf_align.errors import UserError

P = "Say something."


def rows_of(*pairs: str, **columns: list[Any]) -> list[dict[str, Any]]:
    """Rows of pairs such as "ab" (a is preferred to b), with further columns."""
    rows = [{"prompt": P, "chosen": pair[0], "rejected": pair[1]} for pair in pairs]
    return [row | {name: values[number] for name, values in columns.items()} for number, row in enumerate(rows)]


def made(data: Dataset, kind: str, *columns: str) -> list[tuple[Any, ...]]:
    """Columns of the rows of a kind."""
    names = ("chosen", "rejected", *columns)
    return [tuple(row[name] for name in names) for row in data.to_list() if row["source"] == f"augmented:{kind}"]


def test_chains_of_preferences_imply_pairs_with_the_smallest_margin_of_their_chain(caplog: Any) -> None:
    votes = {"chosen_ratings": [[4], [3], [2]], "rejected_ratings": [[3], [2], [1]], "domain": ["x", "x", "y"]}
    rows = rows_of("ab", "bc", "cd", margin=[2.0, 0.5, 1.0], weight=[1, 2, 3], source=["forum", None, "mail"], **votes)
    other = {**rows[0], "prompt": "Another."}  # b isn't compared with c there
    data = augment([*rows, other], transitivity=True)
    columns = ("margin", "weight", "origin", "chosen_ratings", "rejected_ratings", "domain")
    assert sorted(made(data, "transitivity", *columns)) == [
        ("a", "c", 0.5, 1, [0, 1], [4], [2], "x"),
        ("a", "d", 0.5, 1, [0, 1, 2], [4], [1], None),
        ("b", "d", 0.5, 2, [1, 2], [3], [1], None),
    ]
    assert data["source"][:4] == ["forum", "original", "mail", "forum"] and data["origin"][:4] == [[0], [1], [2], [3]]
    assert "4 rows, and made of them 3 by transitivity." in caplog.text and "label" not in data.column_names
    check_preferences(data)  # what trainers read


def test_compared_pairs_are_not_made_again_and_the_clearest_chain_counts() -> None:
    rows = rows_of("ab", "bd", "ac", "cd", margin=[3, 1, 2, 2])
    assert made(augment(rows, transitivity=True), "transitivity", "margin", "origin") == [("a", "d", 2.0, [2, 3])]
    tie = rows_of("ab", "bc", "ca", label=[1.0, 0.8, 0.5])
    assert made(augment(tie, transitivity=True), "transitivity") == []


def test_soft_labels_turn_links_round_and_the_smallest_is_passed_on() -> None:
    rows = rows_of("ab", "cb", votes=[[1, 1, 1, 0], [0, 0.5]])  # P(a > b) = .75, P(b > c) = .75
    data = augment(rows, transitivity=True)
    assert data.to_list()[2] == {
        "prompt": P, "chosen": "a", "rejected": "c", "votes": None, "label": 0.75,
        "source": "augmented:transitivity", "origin": [0, 1],
    }  # fmt: skip
    assert data["label"][:2] == [0.75, 0.25]
    check_preferences(data)


@pytest.mark.parametrize(
    ("pairs", "rows", "circles"),
    [
        (("ab", "bc", "ca"), "rows (0, 1 and 2|1, 2 and 0|2, 0 and 1) go round in a circle", "abca bcab cabc"),
        (("ab", "cd", "ba"), "rows (0 and 2|2 and 0) contradict each other", "aba bab"),
    ],
)
def test_circles_and_contradictions_are_refused_with_rows_prompt_and_responses(
    pairs: Any, rows: str, circles: str
) -> None:
    shown = "|".join(" > ".join(map(repr, circle)) for circle in circles.split())
    message = f"data: the preferences of {rows}: to the prompt 'Say something.', ({shown}); correct or drop one of"
    with pytest.raises(UserError, match=message):
        augment(rows_of(*pairs), transitivity=True, name="data")


def test_mixed_pairs_have_the_labels_of_strengths_fitted_to_their_prompt() -> None:
    data = augment(rows_of("ab", "cd", margin=[2, 4]), interpolation=True)
    t = 1.6956207695598620  # the real root of t^3 - t^2 - 2: strengths log t of a and c, -log t of b and d
    label = pytest.approx(t**2 / (1 + t**2), abs=1e-6)
    # Equally strong responses (a and c, b and d) say nothing. The margin in proportion: that of the mean row.
    expected = [
        ("a", "d", label, pytest.approx(3, abs=1e-5), [0, 1]),
        ("c", "b", label, pytest.approx(3, abs=1e-5), [0, 1]),
    ]
    assert sorted(made(data, "interpolation", "label", "margin", "origin")) == expected
    assert data["label"][:2] == [1.0, 1.0]
    check_preferences(data)
    apart = [rows_of("ab")[0], {**rows_of("cd")[0], "prompt": "Another."}]
    assert made(augment(apart, interpolation=True), "interpolation") == []


def test_a_number_limits_the_made_rows_and_the_seed_draws_them(caplog: Any) -> None:
    rows = rows_of(*("ab", "cd", "ef", "gh", "ij", "kl"))
    some = [augment(rows, interpolation=0.5, seed=seed)["chosen"][6:] for seed in (0, 0, 1)]
    assert len(some[0]) == 3 and some[0] == some[1] != some[2] and "3 by interpolation (a random part)" in caplog.text
    wide = rows_of(*(f"{chr(1000 + i)}{chr(5000 + i)}" for i in range(210)))
    with pytest.raises(
        UserError, match="interpolation would make more than 100 pairs for each of 210 rows; give a num"
    ):
        augment(wide, interpolation=True)


def test_reworded_pairs_keep_their_spaces_and_columns_and_unusable_ones_are_counted(caplog: Any) -> None:
    message = [{"role": "assistant", "content": "Good. "}]
    asked: list[str] = []

    def shout(texts: list[str]) -> list[str]:
        asked.extend(texts)
        return [{"same": "same", "blank": " ", "x": "Z", "y": "Z"}.get(text, text.upper()) for text in texts]

    rows = rows_of("ab", "ab", "ab", "ab", "ab", margin=[1, 2, 3, 4, 5])
    for row, chosen in zip(rows, [" good", "same", "blank", "x", "b"], strict=True):
        row["chosen"] = chosen
    rows[3]["rejected"], rows[4]["chosen"] = "y", " c\n"
    data = augment(rows, paraphrase=shout, back_translation=lambda texts: [f"{text}!" for text in texts])
    assert made(data, "paraphrase", "margin", "origin") == [(" GOOD", "B", 1, [0]), (" C\n", "B", 5, [4])]
    assert len(made(data, "back_translation")) == 5
    assert "2 by paraphrase (left out: 1 unchanged, 1 empty, 1 alike for both responses), 5 by back_" in caplog.text
    assert asked == list(dict.fromkeys(asked)), "each text is asked for once"
    chats = [
        {"prompt": [{"role": "user", "content": P}], "chosen": message, "rejected": [{**message[0], "content": "Bad."}]}
    ]
    chats.append({**chats[0], "chosen": [*chats[0]["prompt"], *message]})  # repeats the prompt
    chats.append({**chats[0], "chosen": [*message, chats[0]["prompt"][0], *message]})
    data = augment(chats, paraphrase=shout)
    assert [row["chosen"][-1]["content"] for row in data.to_list()[3:]] == ["GOOD. ", "GOOD. "]
    assert "(left out: 1 of more than one plain text)" in caplog.text


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda texts: texts[1:], "paraphrase got 2 texts and returned 1; return one text for each."),
        (lambda texts: [None] * 2, "paraphrase returned None for a text"),
        (lambda texts: "ab", "paraphrase returned 'ab' for a list of texts; return a list of texts."),
        (lambda texts: None, "paraphrase returned None for a list of texts; return a list of texts."),
        ("words.py:paraphrase", "paraphrase is 'words.py:paraphrase'; give a function"),
        (lambda texts: texts[::-1], "paraphrase gave one response of row 0 for the other .'a', 'b'., which turns"),
    ],
)
def test_functions_must_rewrite_every_text_and_keep_the_preference(function: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        augment(rows_of("ab"), paraphrase=function)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (rows_of("ab"), {}, "augment makes nothing: give transitivity"),
        (rows_of("ab"), {"interpolation": -1}, "interpolation is -1; give True"),
        ([{"prompt": P, "responses": ["a", "b"], "ranking": [0, 1]}], {"transitivity": True}, "dataset has rankings"),
        ([{"chosen": "one two", "rejected": "one three"}], {"transitivity": True}, "dataset has no column prompt"),
        (rows_of("ab", margin=[None]), {"transitivity": True}, "1 row has a margin that is no number from 0"),
        (rows_of("ab", origin=[1]), {"transitivity": True}, "dataset has a column origin, which augment adds"),
        ([], {"transitivity": True}, "dataset has no rows"),
        (rows_of("ab"), {"transitivity": True, "seed": "x"}, "seed is 'x'; give a whole number from 0"),
        (rows_of("ab"), {"transitivity": True, "seed": -1}, "seed is -1; give"),
    ],
)
def test_what_cannot_be_augmented_is_said(rows: Any, options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        augment(rows, **options)


def test_made_rows_are_refused_where_something_is_measured() -> None:
    data = augment(rows_of("ab", "bc"), transitivity=True)
    for rows in (data, data.to_list()):
        with pytest.raises(
            UserError, match=r"data: 1 row has a source that says augmented \(row 2\); .* split the data"
        ):
            refuse_augmented(rows, "data")
    refuse_augmented(data.select([0, 1]), "data")
    refuse_augmented(rows_of("ab", source=["augmented by hand"]), "data")


def test_made_rows_are_counted_by_kind() -> None:
    data = augment(
        rows_of("ab", "bc", "de"),
        transitivity=True,
        interpolation=True,
        paraphrase=lambda texts: [t * 2 for t in texts],
    )
    counts = count_made(data)
    assert counts == count_made(data.to_list()) and counts["transitivity"] == 1 and counts["paraphrase"] == 3
    assert sum(counts.values()) == len(data) - 3
    assert count_made(rows_of("ab")) == count_made(None) == {}


def test_rows_of_several_pairs_have_no_votes_and_reworded_ones_those_of_their_pair() -> None:
    rows = rows_of("ab", "bc", votes=[[1, 1, 0], [1, 0.5]])
    data = augment(rows, transitivity=True, paraphrase=lambda texts: [text * 2 for text in texts]).to_list()
    assert [(row["source"], row["votes"]) for row in data[2:]] == [
        ("augmented:transitivity", None),
        ("augmented:paraphrase", [1, 1, 0]),
        ("augmented:paraphrase", [1, 0.5]),
    ]


def test_the_how_to_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "augment.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), names)
    assert f"prints `{capsys.readouterr().out.rstrip()}`" in page
    assert names["data"]["source"] == ["original"] * 2 + ["augmented:paraphrase"] * 2
    two = augment(rows_of("ab", "cd"), interpolation=True)
    assert f"give P(a > d) = {two[2]['label']:.2f}".replace("0.", ".") in page
