import random
from typing import Any

import pytest

from hf_align.data.embedded.ratings import load_ratings
from hf_align.data.embedded.rows import make_pairs, make_rankings
from hf_align.data.inspection.duplicates import CHECKS, KINDS, MANY_PROMPTS, Duplicates
from tests.data.inspection.checking import by_kind, found_by

SENTENCES = [text for text in load_ratings("test")["text"][:] if 60 < len(text) < 200]


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows of a prompt and two responses of their own."""
    each = iter(SENTENCES[start:])
    return [{"prompt": next(each), "chosen": next(each), "rejected": next(each)} for _ in range(count)]


def edited(text: str) -> str:
    """A word added in the middle."""
    words = text.split()
    return " ".join([*words[: len(words) // 2], "so", *words[len(words) // 2 :]])


def test_rows_of_their_own_have_no_findings() -> None:
    assert found_by(Duplicates, pairs(150)).findings == []
    assert (Duplicates,) == CHECKS and len({kind.name for kind in KINDS}) == len(KINDS)


def test_clean_pairs_and_rankings_of_the_embedded_data_have_notes_alone() -> None:
    for rows in (make_pairs("train", 1000), make_rankings("train", 150)):
        found = found_by(Duplicates, rows.to_list())
        assert {finding.severity for finding in found.findings} <= {"note"}


def test_copies_of_a_pair_are_dropped_but_for_the_first() -> None:
    rows = pairs(8)
    rows = [*rows, dict(rows[2]), dict(rows[5]), dict(rows[2])]
    finding = by_kind(found_by(Duplicates, rows))["duplicate_pair"]
    assert (finding.rows, finding.drop, finding.severity) == ([2, 5, 8, 9, 10], [8, 9, 10], "warning")
    assert finding.message == "3 rows have an exact duplicate earlier on: 2 rows would be left of these."
    assert finding.example == rows[2]["chosen"]


def test_a_pair_in_the_other_order_with_the_other_label_says_the_same() -> None:
    rows = [row | {"label": 1.0} for row in pairs(4)]
    rows.append(rows[1] | {"chosen": rows[1]["rejected"], "rejected": rows[1]["chosen"], "label": 0.0})
    found = by_kind(found_by(Duplicates, rows))
    assert (found["swapped_pair"].rows, found["swapped_pair"].drop) == ([1, 4], [4])
    assert "1 row has an exact duplicate earlier on, with the responses in the other" in found["swapped_pair"].message
    assert set(found) == {"swapped_pair", "prompt_repeated"}


def test_contradicted_pairs_are_listed_whole_and_their_copies_kept_as_votes() -> None:
    rows = pairs(4)
    opposite = rows[1] | {"chosen": rows[1]["rejected"], "rejected": rows[1]["chosen"]}
    found = by_kind(found_by(Duplicates, [*rows, opposite, dict(rows[1]), dict(rows[0])]))
    assert (found["contradicted_pair"].rows, found["contradicted_pair"].drop) == ([1, 4, 5], ())
    assert found["contradicted_pair"].message == (
        "2 rows have the opposite preference earlier on: 3 rows disagree about 1 pair of responses, 1 by two to one or "
        "more."
    )
    assert (found["duplicate_pair"].rows, found["duplicate_pair"].drop) == ([0, 1, 5, 6], [6])
    assert "near_duplicate_pair" not in found


def test_rows_near_in_prompt_and_both_responses_are_near_duplicates() -> None:
    rows = pairs(40)
    copies = [
        {"prompt": edited(rows[3]["prompt"]), "chosen": rows[3]["chosen"], "rejected": rows[3]["rejected"]},
        {"prompt": rows[7]["prompt"], "chosen": rows[7]["chosen"] + "!!", "rejected": rows[7]["rejected"].upper()},
        {"prompt": rows[9]["prompt"], "chosen": rows[9]["chosen"], "rejected": rows[10]["rejected"]},  # half of it
        {"prompt": rows[11]["prompt"], "chosen": edited(rows[12]["chosen"]), "rejected": rows[12]["rejected"]},
    ]
    found = found_by(Duplicates, [*rows, *copies])
    near = by_kind(found)["near_duplicate_pair"]
    assert (near.rows, near.drop) == ([3, 7, 40, 41], [40, 41])
    assert near.message == (
        "2 rows have a near duplicate: prompt and responses with a Jaccard similarity of 0.8 or more, in 2 groups, the "
        "largest of 2."
    )
    assert found.metrics["near_duplicate_pairs"] == {
        **{"copies": 2, "groups": 2, "largest": 2, "longest_chain": 2},
        "complete": True,
    }


def test_near_rows_that_say_the_opposite_are_no_duplicates() -> None:
    rows = pairs(3)
    turned = {"prompt": edited(rows[0]["prompt"]), "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}
    alike = {"prompt": rows[1]["prompt"], "chosen": rows[1]["chosen"], "rejected": edited(rows[1]["chosen"])}
    again = alike | {"prompt": edited(alike["prompt"])}
    opposite = again | {"chosen": again["rejected"], "rejected": again["chosen"]}
    assert "near_duplicate_pair" not in by_kind(found_by(Duplicates, [*rows, turned, alike, opposite]))
    assert by_kind(found_by(Duplicates, [*rows, alike, again]))["near_duplicate_pair"].rows == [3, 4]


def test_near_duplicates_of_rankings_have_the_same_order() -> None:
    a, b, c, prompt = SENTENCES[:4]
    row = {"prompt": prompt, "responses": [a, b, c], "scores": [3.0, 2.0, 1.0]}
    near = {"prompt": prompt, "responses": [c + "?", edited(a), b], "scores": [0.5, 4.0, 2.0]}
    other = {"prompt": prompt, "responses": [a, edited(b), c], "scores": [3.0, 1.0, 2.0]}
    finding = by_kind(found_by(Duplicates, [row, near, other]))["near_duplicate_pair"]
    assert (finding.rows, finding.drop) == ([0, 1], [1])


def test_a_response_under_many_prompts_is_a_template_exactly_or_nearly() -> None:
    rows, template = pairs(30), "I am sorry, but as a language model I cannot help you with that."
    for n in range(MANY_PROMPTS):
        rows[3 * n]["rejected"] = template.replace("cannot", "can not") if n % 2 else template
    for n in range(MANY_PROMPTS - 1):
        rows[3 * n + 1]["chosen"] = "Yes, of course."
    for n in range(MANY_PROMPTS):
        rows.append({"prompt": rows[2]["prompt"], "chosen": SENTENCES[-1], "rejected": SENTENCES[-2 - n]})
    found = by_kind(found_by(Duplicates, rows))["response_under_many_prompts"]
    assert found.rows == [3 * n for n in range(MANY_PROMPTS)] and found.drop == ()
    assert found.message == (
        f"1 response stands under 5 prompts or more, exactly or nearly, in {MANY_PROMPTS} rows; the commonest under 5 "
        "prompts."
    )
    assert found.example == template


def test_prompts_of_several_rows_and_near_prompts_are_counted() -> None:
    rows = pairs(12)
    rows[4]["prompt"] = rows[1]["prompt"]
    rows[6]["prompt"] = edited(rows[5]["prompt"])
    found = by_kind(found_by(Duplicates, rows))
    assert (found["prompt_repeated"].rows, found["prompt_repeated"].severity) == ([1, 4], "note")
    assert found["prompt_repeated"].message == (
        "2 rows share the prompt with others: 12 rows have 11 prompts, the commonest stands in 2."
    )
    assert found["near_prompts"].rows == [5, 6] and found["near_prompts"].example == rows[6]["prompt"]


def test_conversations_are_compared_with_roles_and_implicit_prompts_left_alone() -> None:
    def talk(*turns: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 3, turns, strict=False)]

    rows = [
        {"chosen": talk(a, b), "rejected": talk(a, c)}
        for a, b, c in zip(SENTENCES[:9:3], SENTENCES[1:9:3], SENTENCES[2:9:3], strict=True)
    ]
    assert by_kind(found_by(Duplicates, [*rows, rows[0]]))["duplicate_pair"].rows == [0, 3]
    implicit = [{"chosen": f"A film {a}", "rejected": f"A film {b}"} for a, b in (SENTENCES[:2], SENTENCES[2:4])]
    found = by_kind(found_by(Duplicates, [*implicit, implicit[1]]))
    assert set(found) == {"duplicate_pair"} and found["duplicate_pair"].rows == [1, 2]


@pytest.mark.parametrize("text", ["我非常喜欢这部电影因为它讲了两个老朋友在海边的故事", "👍", "Yes."])
def test_short_texts_cjk_and_emoji_are_merged_only_where_they_are_near(text: str) -> None:
    rows = pairs(5)
    rows.append(rows[0] | {"chosen": text})
    rows.append(rows[0] | {"chosen": text.replace("非常", "很").replace("👍", "👎").replace("Yes", "No")})
    near = by_kind(found_by(Duplicates, rows)).get("near_duplicate_pair")
    assert (near.rows if near else None) == ([5, 6] if "电影" in text else None)


def test_rows_that_cannot_be_read_and_no_rows_at_all_are_passed_over() -> None:
    rows = pairs(3)
    rows.insert(0, {"prompt": "p", "chosen": "", "rejected": "x"})
    assert by_kind(found_by(Duplicates, [*rows, rows[2]]))["duplicate_pair"].rows == [2, 4]
    assert found_by(Duplicates, rows[:1]).findings == []


def test_results_depend_on_the_rows_alone() -> None:
    rows = pairs(30)
    rng = random.Random(0)
    rows += [rng.choice(rows) | {"chosen": edited(rng.choice(rows)["chosen"])} for _ in range(10)]
    assert found_by(Duplicates, rows) == found_by(Duplicates, rows)
