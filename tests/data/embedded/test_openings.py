import pytest

from hf_align.data.embedded.openings import OpeningFilter, opening_of


@pytest.fixture(scope="module")
def neutral():
    known = "the film story of a director it is does he and then".split()
    rows = [(" ".join(known), "movies", mean) for mean in (1.0, 3.0) * 20]
    rows += [("delightful film", "movies", 4.0)] * 20 + [("dull film", "movies", 0.0)] * 20
    rows += [("rarely", "movies", 2.0)] * 3
    return OpeningFilter({"best", "like"}, rows).neutral_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The film is of a director", 5),  # never more than 5
        ("The story, it is", 4),
        ("The best film", 1),  # rated on its own
        ("The Best's film", 1),
        ("It isn't a film", 1),  # turns around what follows
        ("It is not a film", 2),
        ("A delightful film", 1),  # its sentences are rated above average
        ("A dull film", 1),  # or below
        ("He rarely is", 1),  # seen in three sentences
        ("He Kapur and then", 4),  # a name
        ("Kapur and then", 0),  # or only the first word's capital
        ("3 a film", 0),  # a list's number
        ('"The film" is', 0),
        ("the film... is", 1),
        ("The film-director is", 1),  # an unknown compound
        ("@anonymous is", 0),
        ("", 0),
    ],
)
def test_neutral_words(neutral, text, words):
    assert neutral(text) == words


def test_lean_is_measured_against_the_words_own_domain():
    rows = [("phone", "products", 3.0)] * 30 + [("movie", "movies", -3.0)] * 30
    assert OpeningFilter(set(), rows).neutral_words("phone movie") == 2


def test_opening_of():
    assert opening_of("Well, this is it", 1) == "Well"
    assert opening_of("Well, this is it", 2) == "Well, this"
