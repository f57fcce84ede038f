"""Examples of `hf_align.data.layouts.label_studio`."""

from typing import Any

from tests.data.layouts.example import Example

DATA = {"prompt": "Name a bird.", "text1": "Owl.", "text2": "Bat.", "domain": "birds"}


def _annotation(person: Any, *results: dict[str, Any], cancelled: bool = False) -> dict[str, Any]:
    return {"id": 5, "completed_by": person, "was_cancelled": cancelled, "lead_time": 4.5, "result": list(results)}


def _selected(side: str) -> dict[str, Any]:
    return {"type": "pairwise", "from_name": "pw", "to_name": "text1,text2", "value": {"selected": side}}


def _order(*names: str) -> dict[str, Any]:
    return {"type": "ranker", "from_name": "rank", "to_name": "list", "value": {"ranker": list(names)}}


EXAMPLES = (
    Example(
        "label_studio_pairwise",
        [
            {"id": 1, "data": {**DATA, "prompt": "Name a star."}, "annotations": [], "predictions": []},
            {
                "id": 2,
                "data": DATA,
                "annotations": [
                    _annotation(7, _selected("left")),
                    _annotation(8, _selected("right")),
                    _annotation(9, _selected("left")),
                    _annotation(10, _selected("right"), cancelled=True),
                    _annotation(11),
                ],
                "predictions": [],
            },
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "rejected": "Bat.",
                "domain": "birds",
                "task_id": 2,
                "votes": [1.0, 0.0, 1.0],
                "annotators": ["7", "8", "9"],
            }
        ],
        dropped={"tasks without an annotation": 1, "cancelled annotations": 1, "annotations without an answer": 1},
    ),
    Example(  # choices with a tie; people with their address; columns that name the sides
        "label_studio_pairwise",
        [
            {
                "id": number,
                "data": {"question": question, "answer1": "Owl.", "answer2": "Bat."},
                "annotations": [
                    _annotation(
                        {"id": 3, "email": "ann@example.org"},
                        {"type": "choices", "from_name": "c", "to_name": "q", "value": {"choices": [choice]}},
                    )
                ],
            }
            for number, (question, choice) in enumerate((("Name a bird.", "Answer 1"), ("Name a pet.", "Tie")))
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "rejected": "Bat.",
                "task_id": 0,
                "votes": [1.0],
                "annotators": ["ann@example.org"],
            }
        ],
        dropped={"ties": 1},
    ),
    Example(
        "label_studio_ranker",
        [
            {
                "id": number,
                "data": {
                    "prompt": "Name a bird.",
                    "answers": [{"id": "a", "title": "1", "body": "Owl."}, {"id": "b", "title": "2", "body": "Bat."}],
                },
                "annotations": annotations,
            }
            for number, annotations in enumerate(
                (
                    [
                        _annotation(7, _order("a", "b")),
                        _annotation(8, _order("b", "a")),
                        _annotation(9, _order("a", "b")),
                    ],
                    [_annotation(7, _order("a"))],
                    [_annotation(7, _order("b", "a"), cancelled=True)],
                )
            )
        ],
        [
            {
                "prompt": "Name a bird.",
                "responses": ["Owl.", "Bat."],
                "ratings": [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]],
                "annotators": ["7", "8", "9"],
                "task_id": 0,
            }
        ],
        dropped={"cancelled annotations": 1},
        unusable={"a ranking that doesn't name each item once": [1]},
    ),
    Example(
        "label_studio_min",
        [
            {**DATA, "id": 1, "annotation_id": 11, "annotator": 7, "pw": {"selected": "right"}, "lead_time": 3.5},
            {**DATA, "id": 1, "annotation_id": 12, "annotator": 8, "pw": {"selected": "right"}, "lead_time": 4.5},
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Bat.",
                "rejected": "Owl.",
                "domain": "birds",
                "id": 1,
                "annotation_id": [11, 12],
                "votes": [1.0, 1.0],
                "annotators": ["7", "8"],
            }
        ],
    ),
)
