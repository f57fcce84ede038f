"""Near duplicates among responses."""

from __future__ import annotations

from hf_align.collators.rows import Side
from hf_align.feedback import Response
from hf_align.feedback.collection.diversity import drop_near


def kept(*contents: Side, near: float = 0.8, among: tuple[Side, ...] = ()) -> list[Side]:
    given, before = ([Response("p", each, "a") for each in sides] for sides in (contents, among))
    return [each.content for each in drop_near(given, near, among=before)]


def test_of_near_duplicates_the_first_stays() -> None:
    first = "The committee met on Tuesday to talk about the new bridge over the river."
    assert kept(first, first.replace("Tuesday", "tuesday") + "!", "The bridge was closed.") == [
        first,
        "The bridge was closed.",
    ]
    # 67 and 66 different pieces of 5 characters, of which 59 are shared: 59/74 = .797.
    other = first.replace("Tuesday", "Monday?")
    assert kept(first, other) == [first, other]
    assert kept(first, other, near=0.7) == [first]


def test_short_texts_are_near_only_if_their_words_are_the_same() -> None:
    assert kept("12", "13", "No", "no.", "Ja", "是", "不", "是。", "👍", "👎") == [
        *("12", "13", "No", "Ja", "是", "不", "👍", "👎")
    ]


def test_responses_kept_before_count_and_messages_are_compared_by_their_text() -> None:
    turn = [{"role": "assistant", "content": "A ripe banana, I think."}]
    assert kept("A ripe banana, I think!", "An apple.", among=(turn,)) == ["An apple."]
