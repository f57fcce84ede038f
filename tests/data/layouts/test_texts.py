import pytest

from hf_align.data.layouts.texts import text_columns


@pytest.mark.parametrize(
    ("columns", "texts"),
    [
        ("prompt chosen rejected margin", "prompt chosen rejected"),
        ("question chosen_response rejected_response", "question chosen_response rejected_response"),
        ("prompt question response rating annotator", "prompt response"),
        ("question response_j response_k", "question response_j response_k"),
        ("prompt completion label", "prompt completion"),
        ("instruction input output", "instruction input output"),
        ("item,Response A,Response B,answer,preferred", "item,Response A,Response B"),
        ("text preferred", ""),
        ("question query response_a response_b", "question query response_a response_b"),
    ],
)
def test_prompts_and_responses_are_texts_and_what_judges_them_is_not(columns: str, texts: str) -> None:
    separator = "," if "," in columns else None
    assert text_columns(columns.split(separator)) == texts.split(separator)
