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
        unusable={"a chosen that doesn't end with an assistant message": [2]},
    ),
    Example(
        "stack_exchange_paired",
        [{"qid": 5, "question": "How do I sort?", "response_j": "With sorted().", "response_k": "By hand."}],
        [{"prompt": "How do I sort?", "chosen": "With sorted().", "rejected": "By hand.", "qid": 5}],
    ),
    Example(
        "webgpt",
        [
            {
                "question": {"dataset": "own", "id": "q1", "full_text": "Why is snow white?"},
                "quotes_0": {"title": ["Snow"]},
                "answer_0": "It scatters all light.",
                "score_0": 0.5,
                "quotes_1": {"title": ["Ice"]},
                "answer_1": "It is cold.",
                "score_1": -0.5,
            },
            {
                "question": {"dataset": "own", "id": "q2", "full_text": "Why is grass green?"},
                "quotes_0": {"title": []},
                "answer_0": "Leaves.",
                "score_0": 0.0,
                "quotes_1": {"title": []},
                "answer_1": "Chlorophyll.",
                "score_1": 0.0,
            },
        ],
        [
            {
                "prompt": "Why is snow white?",
                "chosen": "It scatters all light.",
                "rejected": "It is cold.",
                "margin": 1.0,
                "chosen_quotes": {"title": ["Snow"]},
                "rejected_quotes": {"title": ["Ice"]},
                "chosen_score": 0.5,
                "rejected_score": -0.5,
                "question_dataset": "own",
                "question_id": "q1",
            }
        ],
        dropped={"ties": 1},
    ),
    Example(
        "alpaca_pairs",
        [
            {"instruction": "Translate.", "input": "Hund", "chosen": "dog", "rejected": "cat", "lang": "de"},
            {"instruction": "Say hi.", "input": "", "chosen": "Hi!", "rejected": "No.", "lang": "en"},
        ],
        [
            {"prompt": "Translate.\nHund", "chosen": "dog", "rejected": "cat", "lang": "de"},
            {"prompt": "Say hi.", "chosen": "Hi!", "rejected": "No.", "lang": "en"},
        ],
    ),
    Example(
        "alpaca_outputs",
        [
            {
                "system": "Be brief.",
                "instruction": "And now?",
                "input": "",
                "output": ["Bye.", "No."],
                "history": [["Hello?", "Hi."]],
            },
            {"system": "", "instruction": "Sing.", "input": "", "output": ["La.", "La.", "Lo."], "history": []},
            {"system": "", "instruction": "Wave.", "input": "", "output": ["Wave!", "No."], "history": []},
        ],
        [
            {
                "prompt": [{"role": "system", "content": "Be brief."}, *asked("Hello?", "Hi.", "And now?")],
                "chosen": said("Bye."),
                "rejected": said("No."),
            },
            {"prompt": asked("Wave."), "chosen": said("Wave!"), "rejected": said("No.")},
        ],
        unusable={"another number of outputs than two": [1]},
    ),
    Example(
        "system_pairs",
        [
            {"system": "Be kind.", "question": "Am I late?", "chosen": "A little.", "rejected": "Yes!"},
            {"system": "", "question": "Is it far?", "chosen": "A mile.", "rejected": "Far."},
        ],
        [
            {
                "prompt": [{"role": "system", "content": "Be kind."}, *asked("Am I late?")],
                "chosen": said("A little."),
                "rejected": said("Yes!"),
            },
            {"prompt": asked("Is it far?"), "chosen": said("A mile."), "rejected": said("Far.")},
        ],
    ),
    Example(
        "several_pairs",
        [{"id": "a", "prompt": "One plus one?", "chosen": ["Two.", "2"], "rejected": ["3", "11"], "subset": "sums"}],
        [
            {"prompt": "One plus one?", "chosen": good, "rejected": bad, "id": "a", "subset": "sums"}
            for good in ("Two.", "2")
            for bad in ("3", "11")
        ],
    ),
    Example(
        "question_pairs",
        [{"question": "Is ice cold?", "chosen": "Yes.", "rejected": "No.", "margin": 2.0, "score_chosen": 5}],
        [{"prompt": "Is ice cold?", "chosen": "Yes.", "rejected": "No.", "margin": 2.0, "score_chosen": 5}],
    ),
    Example(
        "named_pairs",
        [
            {"prompt": "Is fire hot?", "chosen_response": "Yes.", "rejected_response": "No.", "source": "a"},
            {"prompt": "Is tar black?", "chosen_response": "Yes.", "rejected_response": "Pitch.", "source": "b"},
        ],
        [
            {"prompt": "Is fire hot?", "chosen": "Yes.", "rejected": "No.", "source": "a"},
            {"prompt": "Is tar black?", "chosen": "Yes.", "rejected": "Pitch.", "source": "b"},
        ],
    ),
    Example(
        "triplets",
        [{"query": "Is it open?", "positive": "From nine.", "negative": "It is blue."}],
        [{"prompt": "Is it open?", "chosen": "From nine.", "rejected": "It is blue."}],
    ),
)
