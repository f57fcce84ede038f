"""Examples of `hf_align.data.layouts.trees`."""

from typing import Any

from tests.data.layouts.example import Example, asked, said


def _message(name: str, role: str, text: str, rank: int | None = None, **others: Any) -> dict[str, Any]:
    fields = {"message_id": name, "role": role, "text": text, "rank": rank, "lang": "en", "deleted": False}
    return {**fields, "user_id": f"u{name}", "review_result": True, **others}


def _flat(parent: str | None, *message: Any, **others: Any) -> dict[str, Any]:
    return {"parent_id": parent, "message_tree_id": "1", **_message(*message, **others)}


SECOND_TURN = asked("Name a bird.", "A wren.", "Another?")
TREE = [
    {
        "prompt": asked("Name a bird."),
        "responses": [said("Owl."), said("A wren."), said("Birds are dinosaurs.")],
        "ranking": [1, 0, 2],  # rank 2 was of a deleted answer
        "message_id": "1",
        "lang": "en",
        "message_tree_id": "1",
    },
    {
        "prompt": SECOND_TURN,
        "responses": [said("A kite."), said("A jay.")],
        "ranking": [1, 0],
        "message_id": "6",
        "lang": "en",
        "message_tree_id": "1",
    },
]

EXAMPLES = (
    Example(
        "oasst_trees",
        [
            {
                "message_tree_id": "1",
                "tree_state": "ready_for_export",
                "prompt": {
                    **_message("1", "prompter", "Name a bird."),
                    "replies": [
                        {**_message("2", "assistant", "Owl.", 1), "replies": []},
                        {
                            **_message("3", "assistant", "A wren.", 0),
                            "replies": [
                                {
                                    **_message("6", "prompter", "Another?", 0),
                                    "replies": [
                                        {**_message("7", "assistant", "A kite.", 1), "replies": []},
                                        {**_message("8", "assistant", "A jay.", 0), "replies": []},
                                    ],
                                }
                            ],
                        },
                        {**_message("4", "assistant", "Bat.", 2, deleted=True), "replies": []},
                        {**_message("5", "assistant", "Birds are dinosaurs.", 3), "replies": []},
                        {**_message("9", "assistant", "Hm.", None), "replies": []},
                    ],
                },
            }
        ],
        TREE,
        dropped={"answers without a rank": 1, "branches behind a deleted or rejected message": 1},
    ),
    Example(
        "oasst_messages",
        [  # answers before their prompts, and a thread whose start is missing
            _flat("6", "7", "assistant", "A kite.", 1),
            _flat("6", "8", "assistant", "A jay.", 0),
            _flat(None, "1", "prompter", "Name a bird."),
            _flat("1", "2", "assistant", "Owl.", 1),
            _flat("1", "3", "assistant", "A wren.", 0),
            _flat("1", "4", "assistant", "Bat.", 2, deleted=True),
            _flat("1", "5", "assistant", "Birds are dinosaurs.", 3),
            _flat("3", "6", "prompter", "Another?", 0),
            _flat("99", "10", "assistant", "So?", 0),
            _flat("10", "11", "prompter", "What?", 0),
            _flat(None, "12", "prompter", "Name a fish."),
            _flat("12", "13", "assistant", "Cod.", 0),
            _flat("12", "13", "assistant", "Cod again.", 1),
        ],
        TREE,
        dropped={
            "branches behind a deleted or rejected message": 1,
            "prompts with fewer than two ranked answers": 1,
        },
        unusable={
            "the message_id of an earlier row": [12],
            "a parent_id that leads to no first message": [8, 9],
        },
    ),
    Example(
        "stack_exchange",
        [
            {
                "qid": 9,
                "question": "How do I sort?",
                "answers": [
                    {"answer_id": 1, "text": "With sorted().", "pm_score": 4, "selected": True},
                    {"answer_id": 2, "text": "By hand.", "pm_score": -1, "selected": False},
                    {"answer_id": 3, "text": "With sort().", "pm_score": 4, "selected": False},
                ],
            },
            {"qid": 10, "question": "Why?", "answers": [{"answer_id": 4, "text": "So.", "pm_score": 1}]},
        ],
        [
            {
                "prompt": "How do I sort?",
                "responses": ["With sorted().", "By hand.", "With sort()."],
                "scores": [4.0, -1.0, 4.0],
                "qid": 9,
            }
        ],
        dropped={"questions with fewer than two scored answers": 1},
    ),
    Example(
        "eli5",
        [
            {
                "q_id": "a",
                "title": "Why is the sky blue?",
                "selftext": "My child asks.",
                "answers": {"a_id": ["x", "y"], "text": ["Short waves scatter.", "Paint."], "score": [30, 2]},
            },
            {
                "q_id": "b",
                "title": "Why is grass green?",
                "selftext": "",
                "answers": {"a_id": ["z", "v"], "text": ["It absorbs red.", "Paint."], "score": [8]},
            },
        ],
        [
            {
                "prompt": "Why is the sky blue?\n\nMy child asks.",
                "responses": ["Short waves scatter.", "Paint."],
                "scores": [30.0, 2.0],
                "q_id": "a",
            }
        ],
        unusable={"another number of scores than answers": [1]},
    ),
    Example(
        "prism",
        [
            {
                "conversation_id": "c1",
                "user_id": "user3",
                "conversation_history": [
                    {"turn": 0, "role": "user", "content": "Name a bird.", "if_chosen": None, "score": None},
                    {"turn": 0, "role": "model", "content": "Owl.", "if_chosen": False, "score": 40},
                    {"turn": 0, "role": "model", "content": "A wren.", "if_chosen": True, "score": 90},
                    {"turn": 0, "role": "model", "content": "Bat.", "if_chosen": False, "score": 1},
                    {"turn": 1, "role": "user", "content": "Another?", "if_chosen": None, "score": None},
                    {"turn": 1, "role": "model", "content": "A jay.", "if_chosen": True, "score": 80},
                    {"turn": 1, "role": "model", "content": "A kite.", "if_chosen": False, "score": 70},
                ],
            }
        ],
        [
            {
                "prompt": prompt,
                "chosen": said(chosen),
                "rejected": said(rejected),
                "chosen_score": scores[0],
                "rejected_score": scores[1],
                "annotator": "user3",
                "conversation_id": "c1",
                "turn": turn,
            }
            for prompt, chosen, rejected, scores, turn in (
                (asked("Name a bird."), "A wren.", "Owl.", (90, 40), 0),
                (asked("Name a bird."), "A wren.", "Bat.", (90, 1), 0),
                (SECOND_TURN, "A jay.", "A kite.", (80, 70), 1),
            )
        ],
    ),
)
