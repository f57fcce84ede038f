"""The guess of a prompt's domain."""

from __future__ import annotations

import pytest

from hf_align.feedback.collection.domains import DOMAINS, guess_domain


@pytest.mark.parametrize(
    ("prompt", "domain"),
    [
        ("Write a Python function that reverses a list.", "code"),
        ("What does this do?\n```\nx = 1\n```", "code"),
        ("Calculate the probability of two sixes.", "mathematics"),
        ("Translate into French: good night", "translation"),
        ("Summarise the text below.", "summary"),
        ("Write me a short poem on rain.", "writing"),
        ("My headache won't stop, which medicine helps?", "health"),
        ("Is a verbal contract legal?", "law and money"),
        ("The film was", "review"),
        ("Why do planets orbit stars?", "science"),
        ("Who won the war of 1812?", "history and society"),
        ("Who are you?", "question"),
        ("Hm.", "other"),
        ("Напиши стихи", "Cyrillic script"),
        ("写一首诗", "Chinese or Japanese script"),
        ("42", "other"),
    ],
)
def test_prompts_are_told_by_script_marks_and_key_words(prompt: str, domain: str) -> None:
    assert guess_domain(prompt) == domain
    assert domain in DOMAINS or domain.endswith(" script")


def test_of_messages_the_last_one_counts() -> None:
    turns = ["Write a poem.", "Of course.", "Now translate it."]
    assert guess_domain([{"role": "user", "content": text} for text in turns]) == "translation"


def test_words_inside_other_words_do_not_count() -> None:
    assert guess_domain("Decoded, the digit warmed a prepared barcode.") == "other"
