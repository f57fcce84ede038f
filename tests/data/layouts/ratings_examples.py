"""Examples of `hf_align.data.layouts.ratings`."""

from typing import Any

from tests.data.layouts.example import Example, asked, said

ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")


def rated(response: str, overall: float, *ratings: str) -> dict[str, Any]:
    """A completion of UltraFeedback."""
    notes = {name: {"Rating": rating, "Rationale": "."} for name, rating in zip(ASPECTS, ratings, strict=True)}
    return {"response": response, "model": "m", "overall_score": overall, "critique": "Fine.", "annotations": notes}


def steered(prompt: str, response: str, helpfulness: int, verbosity: int = 1) -> dict[str, Any]:
    """A row of HelpSteer."""
    values = {"helpfulness": helpfulness, "correctness": 3, "coherence": 4, "complexity": 2, "verbosity": verbosity}
    return {"prompt": prompt, "response": response, **values}


def safe(prompt: str, better: int | None, safer: int) -> dict[str, Any]:
    """A row of PKU-SafeRLHF."""
    return {
        "prompt": prompt,
        "response_0": "Ask a vet.",
        "response_1": "Just pull.",
        "is_response_0_safe": True,
        "is_response_1_safe": False,
        "response_0_severity_level": 0,
        "response_1_severity_level": 2,
        "better_response_id": better,
        "safer_response_id": safer,
    }


POST = {"id": "p1", "post": "My cat sleeps.", "title": "Cat", "subreddit": "pets", "site": None, "article": None}
ASKED = "SUBREDDIT: r/pets\n\nTITLE: Cat\n\nPOST: My cat sleeps.\n\nTL;DR:"
ABOUT = {"info_id": "p1", "info_site": None, "info_subreddit": "pets"}


def axis(text: str, overall: int | None, worker: str) -> dict[str, Any]:
    summary = {"text": text, "policy": "sup", "note": None, "axes": {"overall": overall, "accuracy": 5}}
    return {"info": POST, "summary": summary, "worker": worker, "batch": "b", "split": "test"}


EXAMPLES = (
    Example(
        "ultrafeedback",
        [
            {
                "source": "own",
                "instruction": "Name a colour.",
                "models": ["m", "m", "m"],
                "completions": [
                    rated("Red.", 10.0, "1", "2", "1", "2"),  # an overall score that its ratings contradict
                    rated("Teal.", 8.0, "5", "4", "5", "4"),
                    rated("Salt.", 2.0, "1", "N/A", "1", "2"),
                ],
            },
            {
                "source": "own",
                "instruction": "Name a number.",
                "models": ["m", "m", "m"],
                "completions": [rated("Six.", 8.0, "5", "5", "5", "5"), rated("Ox.", 1.0, "1", "1", "1", "1")],
            },
        ],
        [
            {
                "prompt": "Name a colour.",
                "responses": ["Red.", "Teal.", "Salt."],
                "scores": [1.5, 4.5, 2.0],
                "models": ["m", "m", "m"],
                "overall_scores": [10.0, 8.0, 2.0],
                "critiques": ["Fine."] * 3,
                "helpfulness": [1.0, 5.0, 1.0],
                "honesty": [2.0, 4.0, None],
                "instruction_following": [1.0, 5.0, 1.0],
                "truthfulness": [2.0, 4.0, 2.0],
                "source": "own",
            }
        ],
        unusable={"another number of models than completions": [1]},
    ),
    Example(
        "distilabel_ratings",
        [
            {
                "instruction": "Name a tool.",
                "generations": ["Saw.", "Jam."],
                "ratings": [5, 1],
                "rationales": ["a", "b"],
            },
            {  # a rationale of two paragraphs had made three ratings of two
                "instruction": "Name a game.",
                "generations": ["Go.", "Jam."],
                "ratings": [5, None, 1],
                "rationales": ["a", "b", "c"],
            },
            {
                "instruction": "Name a pie.",
                "generations": ["Apple.", "Rock."],
                "ratings": [5, None],
                "rationales": ["a", "b"],
            },
        ],
        [
            {
                "prompt": "Name a tool.",
                "responses": ["Saw.", "Jam."],
                "scores": [5.0, 1.0],
                "rationales": ["a", "b"],
            }
        ],
        unusable={
            "another number of ratings than generations": [1],
            "fewer than two responses with a rating": [2],
        },
    ),
    Example(
        "helpsteer",
        [
            steered("Name a city.", "Bonn.", 4),
            steered("Name a city.", "Mud.", 1, verbosity=3),
            steered("Name a city.", "Ulm.", 4),
            steered("Name a town.", "Ely.", 4),
        ],
        [
            {
                "prompt": "Name a city.",
                "chosen": chosen,
                "rejected": "Mud.",
                "margin": 3.0,
                "chosen_helpfulness": 4,
                "rejected_helpfulness": 1,
                "chosen_verbosity": 1,
                "rejected_verbosity": 3,
                "correctness": 3,
                "coherence": 4,
                "complexity": 2,
            }
            for chosen in ("Bonn.", "Ulm.")
        ],
        dropped={"pairs with a gap of at most 0.5": 1, "prompts with one response": 1},
    ),
    Example(
        "helpsteer2_preference",
        [
            {"prompt": "Two?", "response_1": "2", "response_2": "3", "preference_strength": -3, "split": "train"},
            {"prompt": "Four?", "response_1": "5", "response_2": "4", "preference_strength": 1, "split": "train"},
            {"prompt": "Six?", "response_1": "6", "response_2": "VI", "preference_strength": 0, "split": "train"},
            {"prompt": "Ten?", "response_1": "10", "response_2": "X", "preference_strength": 100, "split": "train"},
        ],
        [
            {"prompt": "Two?", "chosen": "2", "rejected": "3", "margin": 3.0, "split": "train"},
            {"prompt": "Four?", "chosen": "4", "rejected": "5", "margin": 1.0, "split": "train"},
        ],
        dropped={"ties": 1},
        unusable={"a preference_strength beyond 3": [3]},
    ),
    Example(
        "helpsteer3",
        [
            {
                "domain": "general",
                "context": asked("Name a herb."),
                "response1": "Dill.",
                "response2": "Coal.",
                "overall_preference": -2,
                "individual_preference": [{"score": -3, "reasoning": "a"}, {"score": 1, "reasoning": "b"}],
            },
            {
                "domain": "code",
                "context": asked("Name a loop."),
                "response1": "if",
                "response2": "for",
                "overall_preference": 3,
                "individual_preference": [{"score": 3, "reasoning": "a"}, {"score": None, "reasoning": "b"}],
            },
        ],
        [
            {
                "prompt": asked("Name a herb."),
                "chosen": said("Dill."),
                "rejected": said("Coal."),
                "margin": 2.0,
                "domain": "general",
                "individual_preference": [{"score": 3, "reasoning": "a"}, {"score": -1, "reasoning": "b"}],
            },
            {
                "prompt": asked("Name a loop."),
                "chosen": said("for"),
                "rejected": said("if"),
                "margin": 3.0,
                "domain": "code",
                "individual_preference": [{"score": 3, "reasoning": "a"}, {"score": None, "reasoning": "b"}],
            },
        ],
    ),
    Example(
        "saferlhf",
        [safe("My tooth?", 1, 0), safe("A tooth?", None, 0)],
        [
            {
                "prompt": "My tooth?",
                "chosen": "Just pull.",
                "rejected": "Ask a vet.",
                "chosen_is_safe": False,
                "rejected_is_safe": True,
                "chosen_severity_level": 2,
                "rejected_severity_level": 0,
                "chosen_is_safer": False,
                "rejected_is_safer": True,
            }
        ],
        unusable={"a better_response_id that is neither 0 nor 1": [1]},
    ),
    Example(
        "summary_comparisons",
        [
            {
                "info": POST,
                "summaries": [
                    {"text": " A dog.", "policy": "sup", "note": None},
                    {"text": "A cat sleeps. ", "policy": "ref", "note": "x"},
                ],
                "choice": 1,
                "worker": "w1",
                "extra": {"confidence": 7},
            }
        ],
        [
            {
                "prompt": ASKED,
                "chosen": " A cat sleeps.",
                "rejected": " A dog.",
                "chosen_policy": "ref",
                "rejected_policy": "sup",
                "chosen_note": "x",
                "rejected_note": None,
                "worker": "w1",
                "extra": {"confidence": 7},
                **ABOUT,
            }
        ],
    ),
    Example(
        "summary_axes",
        [
            axis("A cat sleeps.", 7, "w1"),
            axis("A dog.", 1, "w1"),
            axis("A cat sleeps.", 6, "w2"),
            axis("A cat.", None, "w1"),
        ],
        [
            {
                "prompt": ASKED,
                "chosen": " A cat sleeps.",
                "rejected": " A dog.",
                "margin": 5.5,
                "chosen_ratings": [7.0, 6.0],
                "rejected_ratings": [1.0],
                "policy": "sup",
                **ABOUT,
            }
        ],
        unusable={"no overall rating": [3]},
    ),
    Example(
        "rated_responses",
        [
            {"prompt": "Name a gem.", "response": "Opal.", "rating": 4.5, "model": "a"},
            {"prompt": "Name a gem.", "response": "Glue.", "rating": 1.0, "model": "b"},
            {"prompt": "Name a gem.", "response": "Jade.", "rating": 4.0, "model": "b"},
            {"prompt": "Name a gem.", "response": "Ruby.", "rating": float("nan"), "model": "b"},
        ],
        [
            {
                "prompt": "Name a gem.",
                "chosen": chosen,
                "rejected": "Glue.",
                "margin": margin,
                "chosen_model": model,
                "rejected_model": "b",
                "chosen_ratings": [rating],
                "rejected_ratings": [1.0],
            }
            for chosen, margin, model, rating in (("Opal.", 3.5, "a", 4.5), ("Jade.", 3.0, "b", 4.0))
        ],
        dropped={"pairs with a gap of at most 0.5": 1},
        unusable={"a rating that is NaN or infinite": [3]},
    ),
)
