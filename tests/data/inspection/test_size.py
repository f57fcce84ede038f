from typing import Any

import pytest

from hf_align.collators import tokenize_preferences
from hf_align.collators.tools import to_dataset
from hf_align.data.inspection import size
from hf_align.errors import UserError
from tests.data.inspection.checking import by_kind, check, rows_by_kind


def rows(n=10):
    return [
        {"prompt": "a b c", "chosen": " d e" * (number + 1), "rejected": " f", "extra": None if number % 2 else 1.5}
        for number in range(n)
    ]


def chat(row):
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {name: [{"role": role, "content": row[name].strip()}] for name, role in roles.items()}


def test_columns_have_types_and_shares_of_nulls():
    metrics = check([{**row, "tags": [] if n < 3 else ["x"]} for n, row in enumerate(rows())], size).metrics
    assert metrics["rows"] == metrics["read"] == 10
    assert [(column["name"], column["type"], column["nulls"]) for column in metrics["columns"]] == [
        ("prompt", "text", 0.0),
        ("chosen", "text", 0.0),
        ("rejected", "text", 0.0),
        ("extra", "number", 0.5),
        ("tags", "list of text", 0.0),
    ]
    conversation = check(list(map(chat, rows())), size).metrics
    assert {column["type"] for column in conversation["columns"]} == {"messages"}


def test_lengths_are_in_words_without_a_tokenizer():
    metrics = check(rows(), size).metrics
    assert metrics["unit"] == "words"
    chosen = metrics["lengths"]["chosen"]  # 2, 4, ..., 20
    assert (chosen["min"], chosen["50%"], chosen["max"], chosen["mean"]) == (2, 11, 20, 11)
    assert chosen["95%"] == pytest.approx(18 + 0.55 * 2)
    assert metrics["lengths"]["rejected"]["max"] == 1
    assert metrics["lengths"]["prompt and longest response"]["max"] == 23
    assert "truncation" not in metrics


def test_rankings_have_one_length_for_each_response():
    data = [{"prompt": "a", "responses": ["b", "c d", "e f g"], "ranking": [0, 1, 2]}] * 3
    assert check(data, size).metrics["lengths"]["response"]["mean"] == 2


def longer(row):
    """A row whose tokens cross no border in some tokenizers and do in others."""
    return {"prompt": "Which of these words", "chosen": row["chosen"].replace("d e", "word is"), "rejected": "no, none"}


@pytest.mark.parametrize("which", ["text", "chat", "implicit", "bos"])
@pytest.mark.parametrize("limits", [(18, None), (40, 3)])
def test_what_truncation_would_cut_is_what_training_cuts(which, limits, tokenizer, bos_tokenizer):
    data = list(map(longer, rows()))
    if which == "chat":
        data = list(map(chat, data))
    if which == "implicit":
        data = [{name: f"{row['prompt']}: {row[name]}" for name in ("chosen", "rejected")} for row in data]
    used = bos_tokenizer if which == "bos" else tokenizer
    options = dict(zip(("max_length", "max_prompt_length"), limits, strict=True))
    whole, kept = (list[Any](tokenize_preferences(to_dataset(data), used, **given)) for given in ({}, options))
    names = ("prompt_ids", "response_ids")
    cut = [n for n, row in enumerate(kept) if any(row[name] != whole[n][name] for name in names)]
    found = check(data, size, tokenizer=used, **options)
    assert rows_by_kind(found).get("cut_by_truncation", []) == cut != []
    lengths = [len(row["prompt_ids"]) + max(map(len, row["response_ids"])) for row in whole]
    assert found.metrics["lengths"]["prompt and longest response"]["max"] == pytest.approx(max(lengths), abs=1)
    assert found.metrics["unit"] == "tokens"


def test_prompts_that_the_template_refuses_are_errors(make_tokenizer):
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.content }}</s>{% endfor %}"
    )
    data = [chat(row) for row in rows(3)]
    data[1]["prompt"].insert(0, {"role": "system", "content": "s"})
    finding = by_kind(check(data, size, tokenizer=make_tokenizer(chat_template=template)))["refused_by_template"]
    assert list(finding.rows) == list(finding.drop) == [1]
    assert "no system" in finding.message


def test_conversations_need_a_template_and_limits_room(bos_tokenizer):
    with pytest.raises(UserError, match="no chat template"):
        check([chat(row) for row in rows(2)], size, tokenizer=bos_tokenizer)
    with pytest.raises(UserError, match="max_length must be at least 2"):
        check(rows(2), size, tokenizer=bos_tokenizer, max_length=1)


def test_rows_far_longer_or_shorter_than_the_others():
    data = [{"prompt": "p", "chosen": "word " * 30 + str(n), "rejected": "other " * 20} for n in range(20)]
    data[3]["chosen"] = "many words " * 400
    data[5] |= {"chosen": "Yes", "rejected": "No"}
    data[7] |= {"chosen": "Yes"}
    assert rows_by_kind(check(data, size)) == {"long_row": [3], "short_row": [5]}


def answers(n):
    return [{"prompt": "p", "chosen": "word " * 30 + str(k), "rejected": "other " * 20} for k in range(n)]


def test_characters_of_scripts_without_spaces_count_as_words():
    texts = {"很好、iPhone 15。": 4, "とてもよかった": 7, "ดีมาก": 5, "It’s a joy – yes": 5, "아주 좋아요": 2, "": 0}
    assert {text: size.count_words(text) for text in texts} == texts
    data = answers(20)
    data[4] |= {"chosen": "这部电影讲的是一个关于家的故事。", "rejected": "不太好看、因为它太长了。"}
    data[9] |= {"chosen": "好看", "rejected": "不"}
    found = check(data, size)
    assert rows_by_kind(found) == {"short_row": [9]}
    assert found.metrics["lengths"]["rejected"]["min"] == 1


def test_short_responses_are_no_finding_where_they_are_the_habit():
    data = answers(20)
    for number in (2, 7, 11):
        data[number] |= {"chosen": str(number), "rejected": "0"}
    assert rows_by_kind(check(data, size)) == {}
    data[11] = data[0]
    assert rows_by_kind(check(data, size)) == {"short_row": [2, 7]}
