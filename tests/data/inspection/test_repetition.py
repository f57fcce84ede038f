import pytest

from hf_align.data.inspection.repetition import repeats_itself

TALK = (
    "We met at the station in the morning and walked along the river until it began to rain, so we went into a small "
    "museum that nobody seemed to know. Its only guard told us about each picture as if he had painted it himself. "
    "Later somebody made tea, and when the sun came out again we had missed two trains without noticing it."
)


@pytest.mark.parametrize(
    "text",
    [
        "The film is good. " * 4,
        "I liked it at first and then I thought that it was so so so so so so so so so",
        "The cast is fine and it is very good and it is very good and it is very good and it is very good.",
        "A film that you should see. A film that you should see.",  # a whole sentence twice
        "Good " + "o" * 60,
        "That was hahahahahahahahahahahahahahahahahahahahahahahahahaha",
        "这部电影很好看。这部电影很好看。这部电影很好看。",
        f"{TALK} That was so so so so so so so so",  # a loop at the end, too short for any share
        TALK + " We will come again, we will come again, we will come again, we will come again.",
        TALK + " " + TALK,
        f"{TALK}\n" + "It rained a lot.\n" * 3 + "Then the sun came out.\n" + "It rained a lot.\n" * 3,
    ],
)
def test_texts_that_repeat_themselves_are_degenerate(text):
    assert repeats_itself(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
        TALK,
        "A little more polished, a little funnier, and a little more madcap.",
        "No, no, no! I don't believe it.",
        "Die die die",
        "It is what it is because it is what we made it.",
        "See https://example.org/a/very/long/link/to/some/page/that/has/many/parts/in/it for more.",
        "我喜欢这部电影,因为演员很好,故事也很好。",
        "def f(a):\n    if a:\n        return a\n    return a\n\n\ndef g(b):\n    return b\n",
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 1 | 3 |\n| 2 | 2 |",
    ],
)
def test_turns_of_phrase_code_tables_and_other_scripts_are_not(text):
    assert not repeats_itself(text)


def sentence(words, phrases):
    """A text of `words` words of four letters, in which "good film" stands `phrases` times, always behind another."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    others = [letters[i // 26] + letters[i % 26] + "xy" for i in range(words - 2 * phrases)]
    before = " ".join(f"{other} good film" for other in others[:phrases])
    return f"{before} {' '.join(others[phrases:])}"


@pytest.mark.parametrize(
    ("words", "phrases", "degenerate"),
    [(60, 5, False), (60, 6, True), (50, 5, True), (40, 5, False), (40, 9, False), (40, 10, True)],
)
def test_the_most_frequent_bigram_may_fill_a_fifth_of_a_document_and_half_of_a_shorter_text(words, phrases, degenerate):
    text = sentence(words, phrases)
    assert len(text.split()) == words
    assert repeats_itself(text) is degenerate
