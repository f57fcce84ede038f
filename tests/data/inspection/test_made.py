from hf_align.data import augment, inspect_preferences
from hf_align.data.inspection.made import MadeRows
from tests.data.inspection.checking import by_kind, found_by

ROWS = [{"prompt": "p", "chosen": a, "rejected": b} for a, b in ("ab", "bc", "cd")]


def test_made_rows_are_counted_by_kind_here_and_are_an_error_in_an_evaluation_set() -> None:
    made = augment(ROWS, transitivity=True, paraphrase=lambda texts: [text * 2 for text in texts])
    found = found_by(MadeRows, made.to_list())
    note = by_kind(found)["made_rows"]
    assert note.message == "6 rows were made by augmentation: 3 by transitivity, 3 by paraphrase."
    assert (list(note.rows), note.severity) == ([3, 4, 5, 6, 7, 8], "note")
    held_out = by_kind(found_by(MadeRows, ROWS, eval_dataset=made.select([0, 3])))["made_rows_in_eval"]
    assert held_out.message == "1 row was made by augmentation in the evaluation set: 1 by transitivity."
    assert held_out.severity == "error" and not held_out.rows
    assert found_by(MadeRows, ROWS, eval_dataset=made.select([0])).findings == []


def test_an_inspection_shows_them_among_the_splits() -> None:
    made = augment(ROWS, transitivity=True)
    inspection = inspect_preferences(ROWS, eval_dataset=made)
    assert inspection.metrics["splits"]["made_in_eval"] == {"transitivity": 3} and not inspection.ok
