import json

from hf_align.printable import printable


def test_what_a_terminal_obeys_is_shown_instead() -> None:
    hostile = "\x1b]0;name\x07\x1b[2J\x9b31m\r\x08\x7f\u202egnp\u2066\udcff\x00"
    shown = printable(hostile)
    assert shown.isprintable() and shown.encode()
    assert json.loads(f'"{shown}"') == hostile  # and the text of JSON stays JSON
    assert printable(shown) == shown


def test_other_texts_stay() -> None:
    text = "A line,\n\ta café, 👩\u200d🚀, مرحبا \u200f!, [bold]:smile:\u2028"
    assert printable(text) == text
