"""Tables of comparisons under names of any spelling."""

import pytest

from hf_align.data.layouts.conversion import convert_rows
from hf_align.data.layouts.sheets import sheet_of
from hf_align.errors import UserError

ROW = {"prompt": "Name a bird.", "response_a": "Owl.", "response_b": "Bat."}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("question", "context", "answer_a", "answer_b"), "question and context could be the prompt"),
        (("prompt", "Summary A", "Summary B", "text 1", "text 2"), "Summary A and text 1 could be the first response"),
    ],
)
def test_columns_of_which_several_could_be_meant_are_refused_by_name(columns: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sheet_of(columns)


def test_an_instruction_is_joined_with_its_input() -> None:
    row = {"Instruction": "Sort.", "Input": "2, 1", "Output A": "1, 2", "Output B": "2, 1", "winner": "A"}
    assert convert_rows([row]).rows["prompt"][:] == ["Sort.\n\n2, 1"]


def test_choices_that_contradict_each_other_are_refused_and_those_that_agree_are_taken() -> None:
    rows = [ROW | {"choice": "A", "winner": "response_a"}, ROW | {"choice": "A", "winner": "response_b"}]
    conversion = convert_rows(rows)
    assert conversion.rows["chosen"][:] == ["Owl."]
    assert conversion.unusable == {"choice and winner that disagree": [1]}


@pytest.mark.parametrize("choice", [0, 1, 2, True])
def test_a_number_that_might_count_from_0_or_1_is_not_taken_for_a_response(choice: object) -> None:
    with pytest.raises(UserError, match="none of the known layouts"):
        convert_rows([ROW | {"choice": choice}])


def test_numbered_responses_are_chosen_by_their_number() -> None:
    row = {"prompt": "Name a bird.", "response 1": "Bat.", "response 2": "Owl.", "choice": 2}
    assert convert_rows([row]).rows["chosen"][:] == ["Owl."]


@pytest.mark.parametrize(
    ("first", "second", "sides"), [("B", "A", "response_a response_b"), ("2", "1", "response 1|response 2")]
)
def test_a_name_of_one_response_that_is_the_text_of_the_other_chooses_neither(
    first: str, second: str, sides: str
) -> None:
    columns = sides.split("|" if "|" in sides else " ")
    clear = {"prompt": "Name a bird.", columns[0]: "Owl.", columns[1]: "Bat.", "winner": second}
    unclear = {"prompt": "Name one.", columns[0]: first, columns[1]: second, "winner": second}
    agreed = {"prompt": "Name another.", columns[0]: second, columns[1]: first, "winner": second}
    conversion = convert_rows([clear, unclear, agreed])
    assert conversion.rows["chosen"][:] == ["Owl.", second]
    assert conversion.unusable == {"a winner that is one response's text and another's name, or a tie's": [1]}
