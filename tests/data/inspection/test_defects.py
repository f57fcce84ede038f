import pytest

from hf_align.collators import find_bad_rows
from hf_align.collators.checks import describe
from hf_align.data.inspection import defects
from tests.data.inspection.checking import by_kind, check, rows_by_kind


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


PLACES = ["station", "museum", "river", "market", "garden", "castle", "harbour", "library", "theatre", "bridge"]


def good(n=12, *, chat=False):
    """Rows of whole sentences."""
    rows = []
    for number in range(n):
        place = f"{PLACES[number % 10]} number {number}"
        texts = f"What is the {place} like?", f"The {place} is a fine place to be.", f"Nobody goes to the {place} now."
        if chat:
            rows.append(
                {"prompt": [user(texts[0])], "chosen": [assistant(texts[1])], "rejected": [assistant(texts[2])]}
            )
        else:
            rows.append(dict(zip(("prompt", "chosen", "rejected"), texts, strict=True)))
    return rows


def with_changes(*changes, chat=False):
    """Good rows, of which the first are changed."""
    rows = good(max(12, len(changes)), chat=chat)
    return [{**row, **change} for row, change in zip(rows, changes, strict=False)] + rows[len(changes) :]


def found(*changes, chat=False, **options):
    return rows_by_kind(check(with_changes(*changes, chat=chat), defects, **options))


@pytest.mark.parametrize("chat", [False, True])
def test_whole_rows_have_no_defects(chat):
    assert found(chat=chat) == {}


def test_what_the_trainers_refuse_stands_in_their_words_by_kind():
    rows = with_changes(
        {}, {"chosen": None}, {"rejected": " "}, {"prompt": ""}, {"rejected": good()[4]["chosen"]}, {"chosen": None}
    )
    result, refused = check(rows, defects), find_bad_rows(rows).bad
    assert rows_by_kind(result) == {"missing": [1, 3, 5], "empty_response": [2], "identical_responses": [4]}
    assert [by_kind(result)[kind].drop for kind in rows_by_kind(result)] == [[1, 3, 5], [2], [4]]
    said = {kind: refused[kind] for kind in ("no chosen", "an empty prompt")}
    assert by_kind(result)["missing"].message == f"{describe(said)}."
    assert by_kind(result)["missing"].severity == "error"


def test_numbers_that_can_not_be_trained_on():
    rows = [row | {"margin": 1.0, "label": 1.0} for row in good()]
    rows[2]["margin"], rows[3]["label"], rows[5]["margin"] = float("nan"), 1.5, -1.0
    assert rows_by_kind(check(rows, defects)) == {"bad_number": [2, 3, 5]}


def test_rows_of_which_no_response_is_better_are_tied():
    assert rows_by_kind(check([{**row, "label": 0.5 if n == 3 else 0.9} for n, row in enumerate(good())], defects)) == {
        "tied": [3]
    }
    rows = [
        {**row, "margin": float(n != 2), "score_chosen": n, "score_rejected": max(1, n - 1)}
        for n, row in enumerate(good())
    ]
    assert rows_by_kind(check(rows, defects)) == {"tied": [1, 2]}
    rankings = [
        {"prompt": row["prompt"], "responses": [row["chosen"], row["rejected"]], "scores": [n // 2, n % 5]}
        for n, row in enumerate(good())
    ]
    assert rows_by_kind(check(rankings, defects)) == {"tied": [0, 9]}  # 0 // 2 == 0 % 5 and 9 // 2 == 9 % 5


def test_near_identical_responses_and_repetition():
    text = good()[1]["chosen"]
    assert found({}, {"rejected": text.upper()}, {"chosen": "It is good. " * 5}) == {
        "near_identical_responses": [1],
        "repetition": [2],
    }


def test_responses_break_off_only_where_the_others_do_not():
    cut = {"chosen": "The place is a fine pla"}
    assert found({}, cut) == {"cut_off": [1]}
    without = [{**row, "chosen": row["chosen"][:-1], "rejected": row["rejected"][:-1]} for row in good()]
    assert rows_by_kind(check(without, defects)) == {}
    few = good(4)
    few[0]["chosen"] = cut["chosen"]
    assert rows_by_kind(check(few, defects)) == {}  # eight texts show no habit


def test_a_broken_encoding_is_repaired_where_that_is_sure():
    rows = with_changes(
        {}, {"chosen": "A cafÃ© with tea."}, {"prompt": "Fish &amp; chips?"}, {"rejected": "Lost\ufffd."}
    )
    finding = by_kind(check(rows, defects))["broken_encoding"]
    assert list(finding.rows) == [1, 2, 3]
    assert {row: dict(change) for row, change in finding.changes.items()} == {
        1: {"chosen": "A café with tea."},
        2: {"prompt": "Fish & chips?"},
    }


def test_repairs_reach_into_messages():
    rows = with_changes({}, {"chosen": [assistant("A cafÃ© with tea.")]}, chat=True)
    (change,) = by_kind(check(rows, defects))["broken_encoding"].changes.values()
    assert change == {"chosen": [assistant("A café with tea.")]}


def test_wrong_roles_in_conversations_are_found_and_only_unreadable_rows_dropped():
    rows = with_changes(
        {},
        {"prompt": [user("a"), user("b")]},
        {"prompt": [user("a"), {"role": "system", "content": "b"}, user("c")]},
        {"rejected": [user("Not an answer.")]},
        {"chosen": [assistant("It is."), user("Is it?")]},
        {"chosen": [assistant("Assistant: It is so.")]},
        chat=True,
    )
    finding = by_kind(check(rows, defects))["wrong_roles"]
    assert list(finding.rows) == [1, 2, 3, 4, 5]
    assert list(finding.drop) == [3, 4]
    assert "1 row has a conversation with two user messages in a row (row 1)" in finding.message


def test_names_of_roles_in_texts_are_a_finding_unless_they_are_the_format():
    assert found({}, {"chosen": "Human: It is good."}) == {"wrong_roles": [1]}
    named = [{**row, "chosen": f"Assistant: {row['chosen']}"} for row in good()]
    assert rows_by_kind(check(named, defects)) == {}


@pytest.mark.parametrize("chat", [False, True])
def test_several_answers_in_one_and_repeated_prompts(chat):
    def answer(text):
        return [assistant(text)] if chat else text

    question = good()[2]["prompt"]
    changes = {}, {"chosen": answer("Fine.\n\nHuman: And now?")}, {"rejected": answer(f"{question} It is old.")}
    assert found(*changes, chat=chat) == {"several_answers": [1], "repeated_prompt": [2]}


def test_a_prompt_that_all_responses_repeat_is_taken_off():
    row = good()[1]
    both = {name: f"{row['prompt']} {row[name]}" for name in ("chosen", "rejected")}
    one = {"chosen": good()[2]["prompt"] + " Yes."}
    finding = by_kind(check(with_changes({}, both, one), defects))["repeated_prompt"]
    assert list(finding.rows) == [1, 2]
    assert {number: dict(change) for number, change in finding.changes.items()} == {
        1: {"chosen": f" {row['chosen']}", "rejected": f" {row['rejected']}"}
    }


def test_only_what_follows_an_implicit_prompt_is_a_response():
    talks = [f"\n\nHuman: {row['prompt']}\n\nAssistant:" for row in good()]
    rows = [
        {"chosen": f"{talk} {row['chosen']}", "rejected": f"{talk} {row['rejected']}"}
        for talk, row in zip(talks, good(), strict=True)
    ]
    assert rows_by_kind(check(rows, defects)) == {}
    rows[3]["chosen"] += "\n\nHuman: And now?"
    assert rows_by_kind(check(rows, defects))["several_answers"] == [3]


def test_special_tokens_in_texts():
    assert found({}, {"chosen": "It is<|endoftext|> good."}, {"prompt": "<|im_start|>user\nHi<|im_end|>\n"}) == {
        "special_tokens": [1]  # a prompt of text may be written by a template
    }
    assert found({}, {"prompt": [user("Is <|im_end|> it good?")]}, chat=True) == {"special_tokens": [1]}


def test_a_bos_that_is_added_anyway_is_taken_off(bos_tokenizer, tokenizer):
    changes = {}, {"prompt": "<s>What is it?"}, {"chosen": "<s><s>It is good."}
    finding = by_kind(check(with_changes(*changes), defects, tokenizer=bos_tokenizer))["double_bos"]
    assert {row: dict(change) for row, change in finding.changes.items()} == {
        1: {"prompt": "What is it?"},
        2: {"chosen": "It is good."},
    }
    assert "double_bos" not in found(*changes, tokenizer=tokenizer)  # has another one, and adds none
    assert found(*changes) == {"double_bos": [1, 2]}


def test_an_end_that_some_responses_lack_or_only_some_have():
    def ended(row):
        return {**row, "chosen": f"{row['chosen']}<|im_end|>", "rejected": f"{row['rejected']}</s>\n"}

    rows = list(map(ended, good()))
    assert rows_by_kind(check(rows, defects)) == {}
    rows[4]["rejected"] = good()[4]["rejected"]
    assert rows_by_kind(check(rows, defects)) == {"missing_end": [4]}
    assert rows_by_kind(check([*good()[:5], ended(good()[5]), *good()[6:]], defects)) == {"missing_end": [5]}
