"""Examples of `hf_align.data.layouts.strings`."""

from tests.data.layouts.example import Example, asked, said

EXAMPLES = (
    Example(
        "pairs",
        [{"prompt": "Name a prime.", "chosen": " 7", "rejected": " 9", "margin": 2.0, "topic": "numbers"}],
        [{"prompt": "Name a prime.", "chosen": " 7", "rejected": " 9", "margin": 2.0, "topic": "numbers"}],
    ),
    Example(
        "hh_transcripts",
        [
            {  # the prompt goes to the last answer, and texts with ": " and blank lines stay whole
                "chosen": "\n\nHuman: Tea: black?\n\nMilk?\n\nAssistant: Black.\n\nHuman: Why?\n\nAssistant: Sour.",
                "rejected": "\n\nHuman: Tea: black?\n\nMilk?\n\nAssistant: Black.\n\nHuman: Why?\n\nAssistant: Odd.",
            },
            {  # they part before the last answer
                "chosen": "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Well?\n\nAssistant: Well.",
                "rejected": "\n\nHuman: Hi.\n\nAssistant: Go.\n\nHuman: Well?\n\nAssistant: Gone.",
            },
            {
                "chosen": "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Well?",
                "rejected": "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: So?",
            },
            {"chosen": "\n\nHuman: Hi.\n\nAssistant: Ho.", "rejected": "\n\nHuman: Hi.\n\nAssistant: Ho. "},
        ],
        [
            {
                "prompt": asked("Tea: black?\n\nMilk?", "Black.", "Why?"),
                "chosen": said("Sour."),
                "rejected": said("Odd."),
            },
            {
                "prompt": asked("Hi."),
                "chosen": asked("", "Hello.", "Well?", "Well.")[1:],
                "rejected": asked("", "Go.", "Well?", "Gone.")[1:],
            },
        ],
        dropped={"pairs of identical responses": 1},
        unusable={"a chosen that doesn't end with an assistant message": [2]},
    ),
    Example(
        "stack_exchange_paired",
        [{"qid": 5, "question": "How do I sort?", "response_j": "With sorted().", "response_k": "By hand."}],
        [{"prompt": "How do I sort?", "chosen": "With sorted().", "rejected": "By hand.", "qid": 5}],
    ),
)
