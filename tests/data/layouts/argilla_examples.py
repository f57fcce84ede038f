"""Examples of `hf_align.data.layouts.argilla`."""

from typing import Any

from tests.data.layouts.example import Example

FIELDS = {"prompt": "Name a bird.", "response-1": "Owl.", "response-2": "Bat."}
THREE = {**FIELDS, "response-3": "A wren."}


def _ranked(*names: str) -> list[dict[str, Any]]:
    return [{"rank": rank, "value": name} for rank, name in enumerate(names, 1)]


def _tied(*names: str) -> list[dict[str, Any]]:
    return [{"rank": 1, "value": name} for name in names]


EXAMPLES = (
    Example(  # version 2, flat: as to_datasets gives it
        "argilla_pairs",
        [
            {
                "id": "r1",
                "status": "completed",
                "_server_id": "s1",
                **FIELDS,
                "preference.responses": [
                    ["response-1", "response-2"],
                    ["response-1", "response-2"],
                    ["response-2"] * 2,
                ],
                "preference.responses.users": ["ann", "ben", "cas"],
                "preference.responses.status": ["submitted", "submitted", "draft"],
                "preference.suggestion": ["response-2", "response-1"],
                "preference.suggestion.agent": "judge",
                "preference.suggestion.score": None,
            },
            {
                "id": "r2",
                "status": "pending",
                "_server_id": "s2",
                **FIELDS,
                "preference.responses": None,
                "preference.responses.users": None,
                "preference.responses.status": None,
                "preference.suggestion": ["response-2", "response-1"],
                "preference.suggestion.agent": "judge",
                "preference.suggestion.score": None,
            },
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "rejected": "Bat.",
                "id": "r1",
                "status": "completed",
                "_server_id": "s1",
                "votes": [1.0, 1.0],
                "annotators": ["ann", "ben"],
            }
        ],
        dropped={"answers that weren't submitted": 1, "records without an answer": 1},
    ),
    Example(  # version 1, of the Hub: ranks with ties, in dicts of lists or lists of dicts
        "argilla_pairs",
        [
            {
                **FIELDS,
                "preference": [
                    {"user_id": "ann", "value": _ranked("response-2", "response-1"), "status": "submitted"},
                    {"user_id": "ben", "value": _tied("response-1", "response-2"), "status": "submitted"},
                    {"user_id": "cas", "value": _ranked("response-1", "response-2"), "status": "discarded"},
                ],
                "preference-suggestion": None,
                "external_id": "e1",
                "metadata": '{"group": "birds"}',
            }
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Bat.",
                "rejected": "Owl.",
                "external_id": "e1",
                "metadata": '{"group": "birds"}',
                "votes": [1.0, 0.5],
                "annotators": ["ann", "ben"],
            }
        ],
        dropped={"answers that weren't submitted": 1},
    ),
    Example(  # version 2, nested: a question with the responses' names and a tie as labels
        "argilla_pairs",
        [
            {
                "id": f"r{number}",
                "fields": {**FIELDS, "prompt": prompt},
                "responses": {"better": [{"value": value, "user_id": "ann"}]},
            }
            for number, (prompt, value) in enumerate((("Name a bird.", "response_1"), ("A mammal?", "tie")))
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "rejected": "Bat.",
                "id": "r0",
                "votes": [1.0],
                "annotators": ["ann"],
            }
        ],
        dropped={"ties": 1},
    ),
    Example(
        "argilla_rankings",
        [
            {
                "id": "r1",
                "fields": THREE,
                "metadata": {"group": "birds"},
                "responses": {
                    "order": [
                        {"value": ["response-3", "response-1", "response-2"], "user_id": "ann", "status": "submitted"},
                        {"value": ["response-1", "response-3", "response-2"], "user_id": "ben", "status": "submitted"},
                    ]
                },
            }
        ],
        [
            {
                "prompt": "Name a bird.",
                "responses": ["Owl.", "Bat.", "A wren."],
                "ratings": [[1.0, 2.0], [0.0, 0.0], [2.0, 1.0]],
                "annotators": ["ann", "ben"],
                "id": "r1",
                "metadata": {"group": "birds"},
            }
        ],
    ),
    Example(  # a rating question for each response, version 1 from the client
        "argilla_ratings",
        [
            {
                "fields": FIELDS,
                "responses": [
                    {
                        "user_id": user,
                        "status": "submitted",
                        "values": {"rating-response-1": {"value": first}, "rating-response-2": {"value": second}},
                    }
                    for user, first, second in (("ann", 5, 1), ("ben", 4, 2))
                ],
                "external_id": "e1",
            }
        ],
        [{"prompt": "Name a bird.", "responses": ["Owl.", "Bat."], "ratings": [[5.0, 4.0], [1.0, 2.0]]}],
    ),
    Example(  # one response a record
        "argilla_ratings",
        [
            {
                "id": response,
                "status": "completed",
                "_server_id": response,
                "instruction": prompt,
                "response": response,
                "quality.responses": ratings,
                "quality.responses.users": ["ann", "ben"][: len(ratings)],
                "quality.responses.status": ["submitted", "submitted"][: len(ratings)],
            }
            for prompt, response, ratings in (
                ("Name a bird.", "Owl.", [5, 4]),
                ("Name a bird.", "Bat.", [2]),
                ("Name a fish.", "Cod.", [5]),
                ("Name a bird.", "Fly.", []),
            )
        ],
        [{"prompt": "Name a bird.", "responses": ["Owl.", "Bat."], "ratings": [[5.0, 4.0], [2.0]]}],
        dropped={"responses without a rating": 1, "prompts with fewer than two rated responses": 1},
    ),
)
