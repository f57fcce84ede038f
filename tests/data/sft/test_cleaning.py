"""Texts are cleaned without changing what they say, and only once."""

from __future__ import annotations

import pytest

from hf_align.data.embedded.ratings import load_ratings
from hf_align.data.sft.cleaning import clean_row, clean_text
from hf_align.data.sft.layouts import Demonstration


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Cafe\u0301", "Café"),
        ("\ufeffA\u00adjoy\u200b to\x00 watch.\x7f", "Ajoy to watch."),
        ("The cafÃ© isnâ€™t open", "The café isn\u2019t open"),
        ("It\x92s fine\x85", "It\u2019s fine…"),
        ("\x1b[31mRed\x1b[0m", "Red"),
        (" One \r\nTwo\t\r\n\r\n\r\n\r\n\r\nThree\u2028Four ", "One\nTwo\n\n\nThree\nFour"),
        ("def f():\n    return 1\n\n\ndef g():", "def f():\n    return 1\n\n\ndef g():"),
        ("👩\u200d👩\u200d👧 \u0645\u06cc\u200c\u062e", "👩\u200d👩\u200d👧 \u0645\u06cc\u200c\u062e"),
        ("1\u00a0000 \u00ab x \u00bb", "1\u00a0000 \u00ab x \u00bb"),
    ],
)
def test_what_nobody_wrote_goes_and_what_means_something_stays(text: str, cleaned: str) -> None:
    assert clean_text(text)[0] == cleaned
    assert clean_text(cleaned) == (cleaned, [])


@pytest.mark.parametrize(
    ("prompt", "completion", "cleaned"),
    [
        ("What is it?", "Tom &amp; Jerry&#39;s &quot;best&quot; caf&eacute;", 'Tom & Jerry\'s "best" café'),
        ("What is it?", "Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("How do I write & in HTML?", "Tom &amp; Jerry", "Tom &amp; Jerry"),
        ("What is it?", "<b>Tom</b> &amp; Jerry", "<b>Tom</b> &amp; Jerry"),
        ("What is it?", "Write `&amp;` there", "Write `&amp;` there"),
        ("What is it?", "R&D &amp; more", "R&D &amp; more"),
        ("What is it?", "&nosuch; &notit; &#0; &amp;", "&nosuch; &notit; &#0; &"),
        ("What is it?", "Fish &amp chips", "Fish &amp chips"),
    ],
)
def test_entities_are_decoded_only_where_the_whole_row_shows_the_trace_of_an_export(
    prompt: str, completion: str, cleaned: str
) -> None:
    once = clean_row(Demonstration("continued text", prompt, completion))
    assert once.row.completion == cleaned
    assert clean_row(once.row).row == once.row


def test_spaces_where_prompt_and_completion_meet_stay() -> None:
    row = Demonstration("continued text", " The film was: ", " a joy. ")
    assert clean_row(row).row == Demonstration("continued text", "The film was: ", " a joy.")
    turns = [{"role": "user", "content": [{"type": "text", "text": " Well? "}]}]
    talk = clean_row(Demonstration("conversation", turns, [{"role": "assistant", "content": " A joy.\n", "x": 1}])).row
    assert talk.prompt == [{"role": "user", "content": [{"type": "text", "text": "Well?"}]}]
    assert talk.completion == [{"role": "assistant", "content": "A joy.", "x": 1}]


def test_clean_sentences_are_left_alone() -> None:
    assert [text for text in load_ratings()["text"][:4000] if clean_text(text)[1]] == []
