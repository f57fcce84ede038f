import pytest

from hf_align.data.inspection.endings import End, end_of


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("It is good.", End.PROPER),
        ('He said "It is good."  ', End.PROPER),
        ("(It really is!)", End.PROPER),
        ("**Is it?**", End.PROPER),
        ("这部电影很好。", End.PROPER),
        ("It is good and the", End.OPEN),
        ("It is good and I wou", End.OPEN),
        ("It is good, but,", End.OPEN),
        ("First of all:", End.OPEN),
        ("这部电影很", End.OPEN),
        ("2. It takes a whi", End.OPEN),  # no list
        ("Yes", End.OTHER),
        ("Not much", End.OTHER),
        ("The answer is 42", End.OTHER),
        ("See it at www.example.org/a/b", End.OTHER),
        ("What a fine day #sun", End.OTHER),
        ("Things to buy:\n- milk\n- bread and butter", End.OTHER),
        ("```\nx = 1\n```", End.OTHER),
        ("That was fun :)", End.OTHER),
        ('It is called "The End"', End.OTHER),
        ("", End.OTHER),
    ],
)
def test_the_end_of_a_text(text, end):
    assert end_of(text) == end
