"""Examples of `hf_align.data.layouts.sheets`."""

from tests.data.layouts.example import Example

COLUMNS = ("Item", "Response A", "Response B", "Model A", "Model B", "Choice", "Topic")

EXAMPLES = (
    Example(
        "annotator_columns",
        [
            {
                "question": "Name a bird.",
                "Answer 1": "Owl.",
                "Answer 2": "Bat.",
                "Annotator Ann": votes[0],
                "Annotator Ben": votes[1],
                "Annotator Cas": votes[2],
                "domain": "animals",
            }
            for votes in (("1", "Answer 1", "tie"), ("2", None, "answer 2"), ("", None, ""), ("1", "?", "1"))
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "rejected": "Bat.",
                "domain": "animals",
                "votes": [1.0, 1.0, 0.5],
                "annotators": ["Annotator Ann", "Annotator Ben", "Annotator Cas"],
            },
            {
                "prompt": "Name a bird.",
                "chosen": "Bat.",
                "rejected": "Owl.",
                "domain": "animals",
                "votes": [1.0, 1.0],
                "annotators": ["Annotator Ann", "Annotator Cas"],
            },
        ],
        dropped={"comparisons without an answer": 1},
        unusable={"a Annotator Ben that names neither response nor a tie": [3]},
    ),
    Example(  # names in any spelling; words in any case; the response itself in the cell
        "spreadsheet",
        [
            dict(zip(COLUMNS, ("Name a bird.", "Owl.", "Bat.", "lark", "wren", "A", "birds"), strict=True)),
            dict(zip(COLUMNS, ("Name a fish.", "Cat.", "Cod.", "lark", "wren", "response b", "fish"), strict=True)),
            dict(zip(COLUMNS, ("Name a star.", "Sun.", "Vega.", "lark", "wren", "TIE", "sky"), strict=True)),
            dict(zip(COLUMNS, ("Name a bug.", "Ant.", "Bee.", "lark", "wren", "", "bugs"), strict=True)),
            dict(zip(COLUMNS, ("Name a tree.", "Oak.", "Fern.", "lark", "wren", "oak.", "trees"), strict=True)),
            dict(zip(COLUMNS, ("Name a tool.", "Saw.", "Axe.", "lark", "wren", "Saw.", "tools"), strict=True)),
        ],
        [
            {
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "chosen_model": models[0],
                "rejected_model": models[1],
                "Topic": topic,
            }
            for prompt, chosen, rejected, models, topic in (
                ("Name a bird.", "Owl.", "Bat.", ("lark", "wren"), "birds"),
                ("Name a fish.", "Cod.", "Cat.", ("wren", "lark"), "fish"),
                ("Name a tool.", "Saw.", "Axe.", ("lark", "wren"), "tools"),
            )
        ],
        dropped={"ties": 1, "comparisons without an answer": 1},
        unusable={"a Choice that names neither response nor a tie": [4]},
    ),
    Example(  # Gradio's flags, several users
        "spreadsheet",
        [
            {
                "Prompt": "Name a bird.",
                "Output 1": "Owl.",
                "Output 2": "Bat.",
                "flag": flag,
                "username": name,
                "timestamp": f"2024-01-0{day}",
            }
            for day, (flag, name) in enumerate((("Output 1 is better", "ann"), ("1", "ben"), ("both good", "cas")), 1)
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "rejected": "Bat.",
                "timestamp": ["2024-01-01", "2024-01-02", "2024-01-03"],
                "votes": [1.0, 1.0, 0.5],
                "annotators": ["ann", "ben", "cas"],
            }
        ],
    ),
)
