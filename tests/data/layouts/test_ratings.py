"""Ratings of one response by several people."""

from hf_align.data.layouts.conversion import convert_rows

RATINGS = [("Opal.", 5, "ann"), ("Opal.", 3, "ben"), ("Glue.", 1, "ann"), ("Glue.", 2, "cem"), ("Jade.", 4, "ann")]
ROWS = [
    {"prompt": "Name a gem.", "response": response, "rating": rating, "annotator": annotator}
    for response, rating, annotator in RATINGS
]


def test_ratings_of_one_response_by_several_people_are_one_response_with_their_mean() -> None:
    conversion = convert_rows(ROWS)
    pair = {"prompt": "Name a gem.", "rejected": "Glue.", "margin": 2.5, "rejected_ratings": [1.0, 2.0]}
    pair |= {"rejected_annotator": ["ann", "cem"]}
    assert conversion.rows.to_list() == [
        pair | {"chosen": "Opal.", "chosen_ratings": [5.0, 3.0], "chosen_annotator": ["ann", "ben"]},
        pair | {"chosen": "Jade.", "chosen_ratings": [4.0], "chosen_annotator": ["ann"]},
    ]
    assert conversion.dropped == {"pairs with a gap of at most 0.5": 1}


def test_a_prompt_with_one_response_rated_twice_makes_no_pair() -> None:
    conversion = convert_rows([*ROWS, *({**row, "prompt": "Name a stone."} for row in ROWS[:2])])
    assert conversion.dropped == {"pairs with a gap of at most 0.5": 1, "prompts with one response": 1}
