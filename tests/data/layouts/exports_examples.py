"""Examples of `hf_align.data.layouts.exports`."""

import json
from typing import Any

from tests.data.layouts.example import Example, asked, said


def _state(model: str, answer: str | None) -> dict[str, Any]:
    messages = [["USER", "An old example"], ["ASSISTANT", "Old."], ["USER", "Name a bird."], ["ASSISTANT", answer]]
    return {"conv_id": model, "model_name": model, "roles": ["USER", "ASSISTANT"], "messages": messages, "offset": 2}


def _event(kind: str, ip: str, answer: str | None = "Bat.", time: float = 1.5) -> dict[str, Any]:
    states = [_state("lark", "Owl."), _state("wren", answer)] if "vote" in kind[1:] else None
    return {"tstamp": time, "type": kind, "models": ["Model A", "Model B"], "states": states, "ip": ip}


BIRDS = {"Input.question": "Name a bird.", "Input.response_a": "Owl.", "Input.response_b": "Bat."}

EXAMPLES = (
    Example(
        "fastchat_votes",
        [
            _event("chat", "10.0.0.1"),
            _event("leftvote", "10.0.0.1", time=2.5),
            _event("rightvote", "10.0.0.2", time=3.5),
            _event("leftvote", "10.0.0.2", time=4.5),
            _event("tievote", "10.0.0.1", answer="A wren."),
            _event("bothbad_vote", "10.0.0.1", answer="A moth."),
            _event("leftvote", "10.0.0.1", answer=None),
        ],
        [
            {
                "prompt": asked("Name a bird."),
                "chosen": said("Owl."),
                "rejected": said("Bat."),
                "chosen_model": "lark",
                "rejected_model": "wren",
                "tstamp": [2.5, 4.5],
                "votes": [1.0, 1.0],
                "annotators": ["user_1", "user_2"],
            }
        ],
        dropped={
            "events that are no votes on two responses": 1,
            "earlier votes of the same annotator on the same pair": 1,
            "ties": 1,
            "ties with both responses bad": 1,
        },
        unusable={"a message without text": [6]},
    ),
    Example(
        "mturk",
        [
            {
                "HITId": "h1",
                "WorkerId": worker,
                "AssignmentStatus": status,
                "WorkTimeInSeconds": 31,
                **BIRDS,
                "Answer.choice": choice,
                "Answer.comment": "fine",
            }
            for worker, status, choice in (
                ("w1", "Approved", "A"),
                ("w2", "Submitted", "Response A"),
                ("w3", "Rejected", "B"),
                ("w4", "Approved", "B"),
            )
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "rejected": "Bat.",
                "seconds": 31,
                "votes": [1.0, 1.0, 0.0],
                "annotators": ["w1", "w2", "w4"],
            }
        ],
        dropped={"rejected assignments": 1},
    ),
    Example(  # radio buttons in JSON
        "mturk",
        [
            {
                "HITId": "h1",
                "WorkerId": "w1",
                "AssignmentStatus": "Approved",
                **BIRDS,
                "Answer.taskAnswers": json.dumps([{"choice": {"A": False, "B": True, "tie": False}}]),
            },
            {"HITId": "h2", "WorkerId": "w1", "AssignmentStatus": "Approved", **BIRDS, "Answer.taskAnswers": "["},
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Bat.",
                "rejected": "Owl.",
                "votes": [1.0],
                "annotators": ["w1"],
            }
        ],
        unusable={"an Answer.taskAnswers that isn't JSON": [1]},
    ),
    Example(
        "figure_eight",
        [
            {
                "_unit_id": 5,
                "_worker_id": worker,
                "_trust": trust,
                "_tainted": tainted,
                "question": "Name a bird.",
                "answer_a": "Owl.",
                "answer_b": "Bat.",
                "preferred": choice,
            }
            for worker, trust, tainted, choice in (
                (1, 0.75, "false", "A"),
                (2, 0.5, "false", "tie"),
                (3, 0.25, "true", "B"),
            )
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "rejected": "Bat.",
                "trust": [0.75, 0.5],
                "votes": [1.0, 0.5],
                "annotators": ["1", "2"],
            }
        ],
        dropped={"tainted judgements": 1},
    ),
    Example(
        "potato",
        [
            {
                "instance_id": "i1",
                "user_id": user,
                "prompt": "Name a bird.",
                "responses": ["Owl.", "Bat."],
                "label_annotations": json.dumps(annotations),
            }
            for user, annotations in (
                ("ann", {"preference": {"selection": "A"}}),
                ("ben", {"preference": {"scale_value": "-2"}, "note": {"text": "sure"}}),
                ("cas", {"preference": {"selection": "tie"}}),
                ("dee", {}),
                ("eve", {"fluency": {"selection": "A"}, "overall": {"selection": "B"}}),
            )
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "rejected": "Bat.",
                "instance_id": "i1",
                "votes": [1.0, 1.0, 0.5],
                "annotators": ["ann", "ben", "cas"],
            }
        ],
        dropped={"comparisons without an answer": 1},
        unusable={"several comparisons: fluency, overall": [4]},
    ),
)
