"""Examples of `hf_align.data.layouts.battles`."""

import json

from tests.data.layouts.example import Example, asked, said

MODELS = {"model_a": "lark", "model_b": "wren"}
OF_LARK = {"chosen_model": "lark", "rejected_model": "wren"}
OF_WREN = {"chosen_model": "wren", "rejected_model": "lark"}
SKY = {"prompt": "What colour is the sky?", "response_a": "Blue.", "response_b": "Green."}


def _battle(a: str, b: str, winner: str, **others: object) -> dict[str, object]:
    sides = {"conversation_a": asked("Name a bird.", a), "conversation_b": asked("Name a bird.", b)}
    return {**MODELS, **sides, "winner": winner, "language": "English", **others}


def _parts(text: str, image: str | None = None) -> list[dict[str, str | None]]:
    return [{"type": "text", "text": text, "image": image}]


EXAMPLES = (
    Example(
        "mt_bench_judgments",
        [
            {  # a vote on the first turn, though both turns are there
                "question_id": 81,
                **MODELS,
                "winner": "model_b",
                "judge": "expert_1",
                "conversation_a": asked("Name a bird.", "Owl.", "Another?", "Owl again."),
                "conversation_b": asked("Name a bird.", "A wren.", "Another?", "A kite."),
                "turn": 1,
            },
            {  # another judge, who saw the two the other way round
                "question_id": 81,
                "model_a": "wren",
                "model_b": "lark",
                "winner": "tie",
                "judge": "expert_2",
                "conversation_a": asked("Name a bird.", "A wren.", "Another?", "A kite."),
                "conversation_b": asked("Name a bird.", "Owl.", "Another?", "Owl again."),
                "turn": 1,
            },
            {
                "question_id": 81,
                **MODELS,
                "winner": "model_b",
                "judge": "expert_1",
                "conversation_a": asked("Name a bird.", "Owl.", "Another?", "Owl again."),
                "conversation_b": asked("Name a bird.", "A wren.", "Another?", "A kite."),
                "turn": 2,
            },
        ],
        [
            {
                "prompt": asked("Name a bird."),
                "chosen": said("A wren."),
                "rejected": said("Owl."),
                **OF_WREN,
                "question_id": 81,
                "turn": 1,
                "votes": [1.0, 0.5],
                "annotators": ["expert_1", "expert_2"],
            },
            {
                "prompt": asked("Name a bird."),
                "chosen": asked("", "A wren.", "Another?", "A kite.")[1:],
                "rejected": asked("", "Owl.", "Another?", "Owl again.")[1:],
                **OF_WREN,
                "question_id": 81,
                "turn": 2,
                "votes": [1.0],
                "annotators": ["expert_1"],
            },
        ],
    ),
    Example(  # with judges
        "arena_conversations",
        [
            _battle("Owl.", "A wren.", "model_a", judge="user_1", turn=1, tstamp=1.5),
            _battle("Kite.", "Tit.", "tie", judge="user_2", turn=1, tstamp=2.5),
            _battle("Bat.", "Moth.", "tie (bothbad)", judge="user_1", turn=1, tstamp=3.5),
            {**_battle("Kite.", "", "model_a", judge="user_3", turn=1, tstamp=4.5)},
        ],
        [
            {
                "prompt": asked("Name a bird."),
                "chosen": said("Owl."),
                "rejected": said("A wren."),
                **OF_LARK,
                "language": "English",
                "turn": 1,
                "tstamp": 1.5,
                "votes": [1.0],
                "annotators": ["user_1"],
            }
        ],
        dropped={"ties": 1, "ties with both responses bad": 1},
        unusable={"a message without content in conversation_b": [3]},
    ),
    Example(  # without judges, content in parts
        "arena_conversations",
        [
            {
                "id": "x1",
                **MODELS,
                "winner": winner,
                "conversation_a": [
                    {"role": "user", "content": _parts("Name a bird.", image)},
                    {"role": "assistant", "content": _parts("Owl.")},
                ],
                "conversation_b": [
                    {"role": "user", "content": _parts("Name a bird.", image)},
                    {"role": "assistant", "content": _parts("A wren.")},
                ],
            }
            for winner, image in (("model_b", None), ("both_bad", None), ("model_a", "bird.png"))
        ],
        [
            {
                "prompt": asked("Name a bird."),
                "chosen": said("A wren."),
                "rejected": said("Owl."),
                **OF_WREN,
                "id": "x1",
                "votes": [1.0, 0.5],
            }
        ],
        unusable={"an image in conversation_a": [2]},
    ),
    Example(
        "arena_55k",
        [
            {
                "id": number,
                **MODELS,
                "prompt": json.dumps(["Name a bird.", "Another?"]),
                "response_a": json.dumps(["Owl.", second]),
                "response_b": json.dumps(["Owl.", "A kite."]),
                "winner_model_a": wins[0],
                "winner_model_b": wins[1],
                "winner_tie": wins[2],
            }
            for number, (second, wins) in enumerate(
                [("A tit.", (1, 0, 0)), ("A jay.", (0, 0, 1)), (None, (0, 1, 0)), ("A hen.", (1, 1, 0))]
            )
        ],
        [
            {  # the shared first answer belongs to the prompt
                "prompt": asked("Name a bird.", "Owl.", "Another?"),
                "chosen": said("A tit."),
                "rejected": said("A kite."),
                **OF_LARK,
                "id": 0,
            }
        ],
        dropped={"ties": 1},
        unusable={
            "a turn without text": [2],
            "not exactly one of winner_model_a, winner_model_b and winner_tie": [3],
        },
    ),
    Example(
        "shp",
        [
            {
                "post_id": "p1",
                "domain": "askbirds",
                "history": "Do owls see by day?",
                "human_ref_A": "They do.",
                "human_ref_B": "Never.",
                "labels": label,
                "score_A": 12,
                "score_B": score,
                "score_ratio": 2.0,
            }
            for label, score in ((1, 6), (0, 24), (0, 3))
        ],
        [
            {
                "prompt": "Do owls see by day?",
                "chosen": chosen,
                "rejected": rejected,
                "chosen_score": scores[0],
                "rejected_score": scores[1],
                "post_id": "p1",
                "domain": "askbirds",
                "score_ratio": 2.0,
            }
            for chosen, rejected, scores in (("They do.", "Never.", (12, 6)), ("Never.", "They do.", (24, 12)))
        ],
        unusable={"labels that contradict score_A and score_B": [2]},
    ),
    Example(
        "preference_collection",
        [
            {
                "orig_instruction": "Name a bird.",
                "orig_response_A": "Owl.",
                "orig_response_B": "Bat.",
                "orig_preference": "A",
                "orig_score_A": 5,
                "orig_score_B": 1,
                "orig_criteria": "Is it a bird?",
                "instruction": "Judge the two.",
                "output": "[RESULT] A",
            }
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "rejected": "Bat.",
                "chosen_score": 5,
                "rejected_score": 1,
                "orig_criteria": "Is it a bird?",
            }
        ],
    ),
    Example(
        "pandalm",
        [
            {
                "idx": 3,
                "instruction": "Sort the list.",
                "input": "2, 1",
                "response1": "1, 2",
                "response2": "2, 1",
                "annotator1": votes[0],
                "annotator2": votes[1],
                "annotator3": votes[2],
            }
            for votes in ((1, 1, 0), (1, 2, 0), (2, 2, 2))
        ],
        [
            {
                "prompt": "Sort the list.\n\n2, 1",
                "chosen": "1, 2",
                "rejected": "2, 1",
                "idx": 3,
                "votes": [1.0, 1.0, 0.5],
                "annotators": ["annotator1", "annotator2", "annotator3"],
            },
            {
                "prompt": "Sort the list.\n\n2, 1",
                "chosen": "2, 1",
                "rejected": "1, 2",
                "idx": 3,
                "votes": [1.0, 1.0, 1.0],
                "annotators": ["annotator1", "annotator2", "annotator3"],
            },
        ],
        dropped={"ties": 1},
    ),
    Example(
        "llmbar",
        [
            {"input": "Name a bird.", "output_1": "Owl.", "output_2": "Bat.", "label": 1},
            {"input": "Name a fish.", "output_1": "Cat.", "output_2": "Cod.", "label": 2},
        ],
        [
            {"prompt": "Name a bird.", "chosen": "Owl.", "rejected": "Bat."},
            {"prompt": "Name a fish.", "chosen": "Cod.", "rejected": "Cat."},
        ],
    ),
    Example(
        "alpaca_eval",
        [
            {
                "instruction": instruction,
                "input": context,
                "output_1": "Owl.",
                "output_2": "Cod.",
                "generator_1": "lark",
                "generator_2": "wren",
                "annotator": "judge",
                "preference": preference,
            }
            for instruction, context, preference in (
                ("Choose the bird.", "owl, cod", 1.0),
                ("Name a fish.", "", 1.75),
                ("Name a pet.", "", 1.5),
                ("Name a star.", "", None),
                ("Name a bird.", "", 3.0),
            )
        ],
        [
            {
                "prompt": "Choose the bird.\n\nowl, cod",
                "chosen": "Owl.",
                "rejected": "Cod.",
                **OF_LARK,
                "source_preference": 1.0,
                "votes": [1.0],
                "annotators": ["judge"],
            },
            {
                "prompt": "Name a fish.",
                "chosen": "Cod.",
                "rejected": "Owl.",
                **OF_WREN,
                "source_preference": 1.75,
                "votes": [1.0],
                "annotators": ["judge"],
            },
        ],
        dropped={"ties": 1, "comparisons without an answer": 1},
        unusable={"a preference outside 1 to 2": [4]},
    ),
    Example(
        "reward_bench",
        [
            {
                "id": 4,
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "chosen_model": "lark",
                "rejected": "Bat.",
                "rejected_model": "wren",
                "subset": "chat-easy",
            }
        ],
        [
            {
                "prompt": "Name a bird.",
                "chosen": "Owl.",
                "rejected": "Bat.",
                **OF_LARK,
                "domain": "chat-easy",
                "id": 4,
            }
        ],
    ),
    Example(
        "vote_counts",
        [
            {**SKY, "votes_a": counts[0], "votes_b": counts[1], "votes_tie": counts[2]}
            for counts in ((3, 1, 1), (0, 2, 0), (2, 2, 1), (0, 0, 0), (1.5, 0, 0))
        ],
        [
            {"prompt": SKY["prompt"], "chosen": "Blue.", "rejected": "Green.", "votes": [1.0, 1.0, 1.0, 0.0, 0.5]},
            {"prompt": SKY["prompt"], "chosen": "Green.", "rejected": "Blue.", "votes": [1.0, 1.0]},
        ],
        dropped={"ties": 1, "comparisons without a vote": 1},
        unusable={"a number of votes that is no whole number from 0": [4]},
    ),
    Example(
        "upvotes",
        [{**SKY, "upvotes_a": 4, "upvotes_b": 9}, {**SKY, "upvotes_a": 2, "upvotes_b": 2}],
        [
            {
                "prompt": SKY["prompt"],
                "chosen": "Green.",
                "rejected": "Blue.",
                "chosen_upvotes": 9.0,
                "rejected_upvotes": 4.0,
            }
        ],
        dropped={"ties": 1},
    ),
    Example(  # one answer each
        "comparisons",
        [{**SKY, "preference": 1.0, "topic": "sky"}, {**SKY, "prompt": "And at dusk?", "preference": 0.5, "topic": ""}],
        [{"prompt": SKY["prompt"], "chosen": "Blue.", "rejected": "Green.", "topic": "sky"}],
        dropped={"ties": 1},
    ),
    Example(  # several annotators; the second shown the other order; one who answered twice
        "comparisons",
        [
            {**SKY, "preference": 1.0, "annotator": "ann", "seconds": 10},
            {
                "prompt": SKY["prompt"],
                "response_a": "Green.",
                "response_b": "Blue.",
                "preference": 0.0,
                "annotator": "ben",
                "seconds": 11,
            },
            {**SKY, "preference": 0.0, "annotator": "cas", "seconds": 12},
            {**SKY, "preference": 1.0, "annotator": "cas", "seconds": 13},
            {**SKY, "preference": 0.0, "annotator": "dee", "seconds": 14},
            {**SKY, "prompt": "And at dusk?", "preference": 0.0, "annotator": "dee", "seconds": 15},
        ],
        [
            {
                "prompt": SKY["prompt"],
                "chosen": "Blue.",
                "rejected": "Green.",
                "seconds": [10, 11, 13, 14],
                "votes": [1.0, 1.0, 1.0, 0.0],
                "annotators": ["ann", "ben", "cas", "dee"],
            },
            {
                "prompt": "And at dusk?",
                "chosen": "Green.",
                "rejected": "Blue.",
                "seconds": [15],
                "votes": [1.0],
                "annotators": ["dee"],
            },
        ],
        dropped={"earlier votes of the same annotator on the same pair": 1},
    ),
)
