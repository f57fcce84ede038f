"""Examples of `hf_align.data.layouts.rankings`."""

from tests.data.layouts.example import Example, asked

EXAMPLES = (
    Example(
        "nectar",
        [
            {
                "prompt": "\n\nHuman: Name a nut. \n\nAssistant: ",
                "answers": [
                    {"answer": "Bolt.", "model": "a", "rank": 3.0},
                    {"answer": "Pecan.", "model": "b", "rank": 1.0},
                    {"answer": "A pecan.", "model": "c", "rank": 1.0},
                ],
                "source": ["own"],
            },
            {
                "prompt": "\n\nHuman: Name a pan. \n\nAssistant: ",
                "answers": [
                    {"answer": "Wok.", "model": "a", "rank": 1.0},
                    {"answer": "Cup.", "model": "a", "rank": None},
                ],
                "source": ["own"],
            },
        ],
        [
            {
                "prompt": asked("Name a nut."),
                "responses": ["Bolt.", "Pecan.", "A pecan."],
                "ranking": [1, 0, 0],
                "response_model": ["a", "b", "c"],
                "source": ["own"],
            }
        ],
        unusable={"fewer than two responses with a score or rank": [1]},
    ),
    Example(
        "scored_records",
        [
            {
                "user_input": "Name a bean.",
                "responses_and_scores": [
                    {"response": "Soy.", "source": "a", "score": 9.0},
                    {"response": "Hay.", "source": "b", "score": 2.5},
                    {"response": "Pea.", "source": "b", "score": None},
                ],
            }
        ],
        [
            {
                "prompt": "Name a bean.",
                "responses": ["Soy.", "Hay.", "Pea."],
                "scores": [9.0, 2.5, None],
                "response_source": ["a", "b", "b"],
            }
        ],
    ),
    Example(
        "rater_rankings",
        [
            {
                "prompt": "Name a spice.",
                "responses": ["Mace.", "Sand.", "Clove."],
                "rankings": [[0, 2, 1], [0, None, 0]],
            },
            {"prompt": "Name a salt.", "responses": ["Sea.", "Rock."], "rankings": [[0, 1, 2], [0, 1, 2]]},
        ],
        [
            {  # points of the first rater: 2, 0, 1; of the second, who tied two: .5 each
                "prompt": "Name a spice.",
                "responses": ["Mace.", "Sand.", "Clove."],
                "ratings": [[2.0, 0.5], [0.0], [1.0, 0.5]],
                "rankings": [[0, 2, 1], [0, None, 0]],
            }
        ],
        unusable={"another number of responses than ranks in a ranking": [1]},
    ),
    Example(
        "best_first",
        [{"prompt": "Name a soup.", "ranked_responses": ["Broth.", "Stew.", "Bread."], "labeler": "x"}],
        [{"prompt": "Name a soup.", "responses": ["Broth.", "Stew.", "Bread."], "ranking": [0, 1, 2], "labeler": "x"}],
    ),
    Example(
        "rankings_from_1",
        [
            {"prompt": "Name a dance.", "responses": ["Waltz.", "Nap.", "Sit."], "ranking": [1, 2, None]},
            {"prompt": "Name a song.", "responses": ["Aria.", "Nap."], "ranking": [0, 1]},
            {"prompt": "Name a play.", "responses": ["Faust.", "Nap."], "ranking": [1, 2]},
        ],
        [
            {"prompt": "Name a dance.", "responses": ["Waltz.", "Nap.", "Sit."], "ranking": [0, 1, None]},
            {"prompt": "Name a play.", "responses": ["Faust.", "Nap."], "ranking": [0, 1]},
        ],
        unusable={"a rank below 1 where others begin at 1": [1]},
    ),
    Example(
        "rankings",
        [{"prompt": "Name a hat.", "responses": ["Beret.", "Shoe."], "ratings": [[5.0, 4.0], [1.0]], "topic": "wear"}],
        [{"prompt": "Name a hat.", "responses": ["Beret.", "Shoe."], "ratings": [[5.0, 4.0], [1.0]], "topic": "wear"}],
    ),
    Example(
        "scored_lists",
        [
            {"query": "Name a knot.", "responses": ["Bowline.", "Rope."], "scores": [0.9, 0.2]},
            {"query": "Name a sail.", "responses": ["Jib.", "Rope."], "scores": [0.9]},
        ],
        [{"prompt": "Name a knot.", "responses": ["Bowline.", "Rope."], "scores": [0.9, 0.2]}],
        unusable={"another number of responses than scores": [1]},
    ),
    Example(
        "ranked_rows",
        [
            {"instruction": "Name a chord.", "output": "Minor.", "rank": 1, "by": "a", "key": "C"},
            {"instruction": "Name a chord.", "output": "Drum.", "rank": 3, "by": "b", "key": "C"},
            {"instruction": "Name a chord.", "output": "Major.", "rank": 1, "by": "b", "key": "C"},
            {"instruction": "Name a scale.", "output": "Blues.", "rank": 1, "by": "b", "key": "D"},
        ],
        [
            {
                "prompt": "Name a chord.",
                "responses": ["Minor.", "Drum.", "Major."],
                "ranking": [0, 1, 0],
                "response_by": ["a", "b", "b"],
                "key": "C",
            }
        ],
        dropped={"prompts with one response": 1},
    ),
)
