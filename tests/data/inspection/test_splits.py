from typing import Any

from datasets import Dataset

from hf_align.data.embedded.ratings import load_ratings
from hf_align.data.inspection.splits import KINDS, Contamination, Shared
from tests.data.inspection.checking import by_kind, found_by

SENTENCES = [text for text in load_ratings("test")["text"][:] if 60 < len(text) < 200 and len(text.split()) > 9]


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows of a prompt and two responses of their own."""
    each = iter(SENTENCES[start:])
    return [{"prompt": next(each), "chosen": next(each), "rejected": next(each)} for _ in range(count)]


def findings(check: Any, rows: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> dict[str, Any]:
    return by_kind(found_by(check, rows, eval_dataset=Dataset.from_list(held_out)))


def test_sets_of_their_own_and_none_at_all_share_nothing() -> None:
    for check in (Shared, Contamination):
        assert findings(check, pairs(40), pairs(40, 200)) == {}
        assert found_by(check, pairs(3)).metrics == {}
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_shared_prompts_are_found_exactly_and_nearly() -> None:
    rows, held_out = pairs(40), pairs(40, 200)
    for row in (3, 5, 8):
        rows[row]["prompt"] = held_out[row % 2]["prompt"]
    rows[10]["prompt"] = held_out[7]["prompt"] + " Please!"
    found = findings(Shared, rows, held_out)
    assert set(found) == {"shared_prompt", "near_shared_prompt"}
    assert (found["shared_prompt"].rows, found["shared_prompt"].drop) == ([3, 5, 8], ())
    assert found["shared_prompt"].message == "3 rows have a prompt of the evaluation set: 2 of its 40 prompts."
    assert found["shared_prompt"].example == rows[3]["prompt"]
    assert (found["near_shared_prompt"].rows, found["near_shared_prompt"].severity) == ([10], "note")


def test_shared_pairs_are_left_out_in_either_order_of_responses() -> None:
    rows, held_out = pairs(10), pairs(10, 200)
    rows[2] = dict(held_out[4])
    rows[6] = {"prompt": held_out[5]["prompt"], "chosen": held_out[5]["rejected"], "rejected": held_out[5]["chosen"]}
    found = findings(Shared, rows, held_out)
    assert (found["shared_pair"].rows, found["shared_pair"].drop) == ([2, 6], [2, 6])
    assert found["shared_prompt"].rows == [2, 6]


def test_implicit_prompts_are_no_shared_prompts() -> None:
    rows = [{"chosen": f"A film {SENTENCES[n]}", "rejected": f"A film {SENTENCES[n + 1]}"} for n in (0, 2, 4)]
    assert set(findings(Shared, rows[:2], rows[1:])) == {"shared_pair"}


def test_texts_that_contain_an_evaluation_s_response_are_contaminated() -> None:
    rows, held_out = pairs(60), pairs(40, 200)
    rows[4]["chosen"] = held_out[0]["chosen"]
    rows[9]["rejected"] = f"As they say: {held_out[1]['rejected'].upper()} And so on."
    rows[11]["prompt"] = f"Is this true? {held_out[2]['chosen']}"
    words = held_out[3]["chosen"].split()
    rows[13]["chosen"] = " ".join(words[: len(words) // 2])  # half of it
    found = findings(Contamination, rows, held_out)["contaminated"]
    assert (found.rows, found.drop) == ([4, 9, 11], [4, 9, 11])
    assert found.message == (
        "3 rows contain 3 responses of the evaluation set (70% or more of the runs of 8 words, or the whole of a "
        "shorter one); 100% of the runs found stand in no other text of either."
    )
    assert found.example == held_out[0]["chosen"]


def test_short_responses_are_found_where_a_text_equals_them_and_very_short_ones_never() -> None:
    rows, held_out = pairs(20), pairs(3, 200)
    held_out[0]["chosen"], held_out[1]["chosen"] = "Rain fell on Spain today.", "I don't know."
    rows[3]["rejected"], rows[5]["rejected"] = "rain fell on spain TODAY", "I don't know."
    rows[7]["rejected"] = "Rain fell on Spain today, and nobody minded it."
    found = found_by(Contamination, rows, eval_dataset=Dataset.from_list(held_out))
    assert by_kind(found)["contaminated"].rows == [3]
    assert found.metrics["contamination"]["too_short"] == 1


def test_common_phrases_prove_nothing_and_lower_the_precision_shown() -> None:
    phrase = "as a large language model I cannot have an opinion about that"
    rows, held_out = pairs(60), pairs(3, 200)
    held_out[0]["chosen"] = phrase
    for number, row in enumerate(rows[:30]):
        row["chosen"] = f"{phrase}, my friend number {number}"
    found = found_by(Contamination, rows, eval_dataset=Dataset.from_list(held_out))
    assert found.findings == []
    # Copies of one response are still found, but its runs stand in several texts.
    rows[40]["chosen"] = held_out[1]["chosen"]
    rows[41]["rejected"] = f"{held_out[1]['chosen']} Yes."
    found = found_by(Contamination, rows, eval_dataset=Dataset.from_list(held_out))
    assert by_kind(found)["contaminated"].rows == [40, 41]
    assert found.metrics["contamination"]["unique_runs"] == 0
    assert found.metrics["contamination"]["matches_of_common_phrases"] > 0


def test_chinese_responses_are_found_by_their_characters() -> None:
    rows, held_out = pairs(5), pairs(2, 200)
    held_out[0]["chosen"] = "这部电影让我又哭又笑。讲了两个老朋友的故事。"
    rows[2]["chosen"] = f"他说 {held_out[0]['chosen']}很好"
    rows[3]["chosen"] = "这部电影让我又哭又睡。别的什么也没有。"
    assert findings(Contamination, rows, held_out)["contaminated"].rows == [2]


def test_rankings_and_unreadable_rows_are_compared_too() -> None:
    a, b, c, prompt = SENTENCES[:4]
    rows = [
        {"prompt": prompt, "responses": [a, b, c], "ranking": [0, 1, 2]},
        {"prompt": "", "responses": [a, b], "ranking": [0, 1]},
        {"prompt": "Another one?", "responses": [SENTENCES[9], SENTENCES[10]], "ranking": [0, 1]},
    ]
    held_out = [{"prompt": prompt, "responses": [c, a, b], "ranking": [0, 1, 2]}, rows[1]]
    assert {kind: each.rows for kind, each in findings(Shared, rows, held_out).items()} == {
        "shared_pair": [0],
        "shared_prompt": [0],
    }
    assert findings(Contamination, rows, held_out)["contaminated"].rows == [0]
