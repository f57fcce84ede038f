"""Examples of `hf_align.data.layouts.messages`."""

from typing import Any

from tests.data.layouts.example import Example, asked, said

SYSTEM = {"role": "system", "content": "Be brief."}


def spoken(*texts: str) -> list[dict[str, str]]:
    """Turns of human and gpt."""
    return [
        {"from": speaker, "value": text} for speaker, text in zip(("human", "gpt") * len(texts), texts, strict=False)
    ]


def parts(message: dict[str, str]) -> dict[str, Any]:
    return {"role": message["role"], "content": [{"type": "text", "text": message["content"]}]}


EXAMPLES = (
    Example(
        "content_parts",
        [
            {
                "prompt": [parts(turn) for turn in asked("Name a fruit.")],
                "chosen": [parts(turn) for turn in said("A fig.")],
                "rejected": [parts(turn) for turn in said("A leek.")],
                "id": 3,
            }
        ],
        [{"prompt": asked("Name a fruit."), "chosen": said("A fig."), "rejected": said("A leek."), "id": 3}],
    ),
    Example(
        "sharegpt_pairs",
        [
            {
                "conversations": spoken("Hi.", "Hello.", "Who are you?"),
                "chosen": {"from": "gpt", "value": "A model."},
                "rejected": {"from": "gpt", "value": "Who?"},
                "system": "Be brief.",
                "tools": "",
            },
            {
                "conversations": spoken("Sing."),
                "chosen": {"from": "martian", "value": "La."},
                "rejected": {"from": "gpt", "value": "No."},
                "system": "",
                "tools": "",
            },
        ],
        [
            {
                "prompt": [SYSTEM, *asked("Hi.", "Hello.", "Who are you?")],
                "chosen": said("A model."),
                "rejected": said("Who?"),
            }
        ],
        unusable={"a message from an unknown speaker martian": [1]},
    ),
    Example(
        "openai_preferences",
        [
            {
                "input": {"messages": [SYSTEM, *asked("Is it late?")], "parallel_tool_calls": True},
                "preferred_output": said("Past ten."),
                "non_preferred_output": said("Maybe."),
            }
        ],
        [
            {
                "prompt": [SYSTEM, *asked("Is it late?")],
                "chosen": said("Past ten."),
                "rejected": said("Maybe."),
                "parallel_tool_calls": True,
            }
        ],
    ),
    Example(
        "ultrafeedback_binarized",
        [
            {
                "prompt": "Name a bird.",
                "chosen": asked("Name a bird.", "A wren."),
                "rejected": asked("Name a bird.", "A bee."),
                "score_chosen": 9.0,
                "score_rejected": 3.0,
            },
            {
                "prompt": "Name a fish.",
                "chosen": asked("Name a fish.", "A cod."),
                "rejected": asked("Name a fish.", "A cod."),
                "score_chosen": 9.0,
                "score_rejected": 9.0,
            },
        ],
        [
            {
                "prompt": asked("Name a bird."),
                "chosen": said("A wren."),
                "rejected": said("A bee."),
                "score_chosen": 9.0,
                "score_rejected": 3.0,
            },
            {  # a pair stays one: its defects are for inspection to find
                "prompt": asked("Name a fish."),
                "chosen": said("A cod."),
                "rejected": said("A cod."),
                "score_chosen": 9.0,
                "score_rejected": 9.0,
            },
        ],
    ),
    Example(
        "message_pairs",
        [{"prompt": "Name a tree.", "chosen": said("An elm.")[0], "rejected": said("A rose.")[0], "rank": 1}],
        [{"prompt": asked("Name a tree."), "chosen": said("An elm."), "rejected": said("A rose."), "rank": 1}],
    ),
    Example(
        "texts_after_messages",
        [{"prompt": asked("Hi.", "Hello.", "Bye?"), "chosen": "Bye!", "rejected": "No.", "category": "chat"}],
        [
            {
                "prompt": asked("Hi.", "Hello.", "Bye?"),
                "chosen": said("Bye!"),
                "rejected": said("No."),
                "category": "chat",
            }
        ],
    ),
    Example(
        "speaker_pairs",
        [
            {
                "prompt": spoken("Name a sea."),
                "chosen": [{"from": "gpt", "value": "The Baltic."}],
                "rejected": [{"from": "gpt", "value": "The Alps."}],
            }
        ],
        [{"prompt": asked("Name a sea."), "chosen": said("The Baltic."), "rejected": said("The Alps.")}],
    ),
    Example(
        "dicts_of_messages",
        [
            {
                "chosen": {"messages": asked("Name a star.", "Vega.")},
                "rejected": {"messages": asked("Name a star.", "Mars.")},
            }
        ],
        [{"prompt": asked("Name a star."), "chosen": said("Vega."), "rejected": said("Mars.")}],
    ),
    Example(
        "speaker_conversations",
        [
            {
                "chosen": spoken("Hi.", "Hello!", "Go on.", "I will."),
                "rejected": spoken("Hi.", "Hello!", "Go on.", "No."),
            }
        ],
        [{"prompt": asked("Hi.", "Hello!", "Go on."), "chosen": said("I will."), "rejected": said("No.")}],
    ),
    Example(
        "unified_feedback",
        [
            {
                "conv_A": asked("Name a metal.", "Wood."),
                "conv_B": asked("Name a metal.", "Tin."),
                "conv_A_rating": 1.0,
                "conv_B_rating": 4.0,
                "source": "own",
            },
            {
                "conv_A": asked("Name a gas.", "Neon."),
                "conv_B": asked("Name a gas.", "Argon."),
                "conv_A_rating": 4.0,
                "conv_B_rating": 4.0,
                "source": "own",
            },
        ],
        [
            {
                "prompt": asked("Name a metal."),
                "chosen": said("Tin."),
                "rejected": said("Wood."),
                "margin": 3.0,
                "chosen_rating": 4.0,
                "rejected_rating": 1.0,
                "source": "own",
            }
        ],
        dropped={"ties": 1},
    ),
    Example(
        "kto",
        [
            {"prompt": "Name a river.", "completion": " Rhine.", "label": 1},
            {"prompt": "Name a river.", "completion": " Rome.", "label": 0},
        ],
        [{"prompt": "Name a river.", "chosen": " Rhine.", "rejected": " Rome."}],
    ),
    Example(
        "kto",
        [
            {"prompt": "Name a river.", "completion": " Rhine.", "label": True, "user": "a", "topic": "water"},
            {"prompt": "Name a lake.", "completion": " Como.", "label": True, "user": "b", "topic": "land"},
            {"prompt": "Name a river.", "completion": " Rome.", "label": False, "user": "c", "topic": "water"},
            {"prompt": "Name a river.", "completion": " Oslo.", "label": False, "user": "a", "topic": "water"},
            {"prompt": "Name a river.", "completion": " Po.", "label": None, "user": "a", "topic": "water"},
        ],
        [
            {
                "prompt": "Name a river.",
                "chosen": " Rhine.",
                "rejected": rejected,
                "chosen_user": "a",
                "rejected_user": user,
                "topic": "water",
            }
            for rejected, user in ((" Rome.", "c"), (" Oslo.", "a"))
        ],
        dropped={"prompts whose completions have one label": 1},
        unusable={"no label": [4]},
    ),
)
