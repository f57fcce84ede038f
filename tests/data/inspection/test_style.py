import pytest

from hf_align.data.inspection.style import TRAITS, opening_of, traits_of


def traits(text: str) -> set[str]:
    return {name for bit, name in enumerate(TRAITS) if traits_of(text) >> bit & 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A plain answer of one line.", set()),
        ("# Title\nText", {"headings"}),
        ("Not #one, and 2 * 3 * 4 - 5.", set()),
        ("This is **bold** text", {"bold text"}),
        ("Buy:\n- milk\n  * eggs", {"bulleted lists"}),
        ("Do:\n1. this\n2) that", {"numbered lists"}),
        ("In 1. there is nothing.", set()),
        ("| a | b |\n|---|---|\n| 1 | 2 |", {"tables"}),
        ("```python\nx\n```", {"code blocks"}),
        ("See https://example.org", {"links"}),
        ("One.\n\nTwo.", {"several paragraphs"}),
        ("\n\nOne.\n\n", set()),
        ("Well done 🎉", {"emojis"}),
        ("Schön, 漢字 © ® ™ 5", set()),
        ("Yes! Which one?", {"exclamation marks", "a question at the end"}),
        ("I'm sorry, but I can't help with that.", {"refusals"}),
        ("I\u2019m unable to do this.", {"refusals"}),
        ("I cannot in good faith assist you here.", set()),
        ("I cannot assist you.", {"refusals"}),
        ("The band said sorry; I can swim.", set()),
        ("x " * 150 + "I'm sorry.", set()),
        ("As an AI language model I have no body.", {"talk of being an AI"}),
        ("I am an artificial intelligence.", {"talk of being an AI"}),
        ("As an aid to memory.", set()),
    ],
)
def test_traits_are_seen_where_they_are_and_nowhere_else(text: str, expected: set[str]) -> None:
    assert traits(text) == expected


@pytest.mark.parametrize(
    ("text", "opening"),
    [
        ("Sure, here is one", "sure here"),
        ("  **As an** AI", "as an"),
        ("- Of course!", "of course"),
        ("Yes.", ""),
        ("", ""),
        ("\u201cI\u2019m sorry,\u201d she said", "i\u2019m sorry"),
    ],
)
def test_an_opening_is_two_words_without_case_and_punctuation(text: str, opening: str) -> None:
    assert opening_of(text) == opening
