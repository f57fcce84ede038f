"""Made-up results in the quickstart's format."""

import math
import random
from typing import Any

TRAINING = {"learning_rate": 2e-4, "max_steps": 60, "per_device_train_batch_size": 16}


def _gains(score: float) -> dict[str, Any]:
    return {
        "gain": score - 0.18,
        "gain_interval": [score - 0.24, score - 0.12],
        "reward_gain": 4 * score - 0.72,
        "reward_gain_interval": [4 * score - 1, 4 * score - 0.5],
        "reward_gain_sds": (4 * score - 0.72) / 1.5,
    }


def metrics() -> dict[str, Any]:
    """Numbers of a plausible full run."""
    people, policies = {}, {}
    for shift, domain in enumerate(("all", "movies", "products", "tweets")):
        r = 0.78 + 0.02 * shift
        people[domain] = {
            "texts": 923,
            "pairs": 143102,
            "scorers": {
                "reward model": {"r": r, "r_interval": [r - 0.03, r + 0.03], "pair_accuracy": 0.82},
                "VADER": {
                    "r": 0.51 + 0.1 * shift,
                    "r_interval": [0.46 + 0.1 * shift, 0.56 + 0.1 * shift],
                    "pair_accuracy": 0.7,
                    "r_gain": 0.27,
                    "r_gain_interval": [0.2, 0.3],
                },
                "single human": {
                    "r": 0.884,
                    "pair_accuracy": 0.89,
                    "r_gain": r - 0.884,
                    "r_gain_interval": [r - 0.914, r - 0.854],
                },
            },
        }
        policies[domain] = {
            "prompts": 256,
            "policies": {
                name: {
                    "score": score,
                    "score_interval": [score - 0.05, score + 0.05],
                    "distinct_2": 0.81,
                    "mean_tokens": 21.4,
                    "ended": 0.62,
                    "reward": 4 * score,
                    "reward_sd": 1.5,
                    **(_gains(score) if name != "base" else {}),
                }
                for name, score in (("base", 0.18), ("dpo", 0.41), ("ipo", -0.05), ("ppo", 0.53))
            },
        }
    stage = {"loss": 0.61, "rewards/accuracies": 0.74, "rewards/margins": 0.31}
    return {
        "command": "hf-align quickstart --seed 3",
        "settings": {
            "profile": "full",
            "quantization": None,
            "seed": 3,
            "numbers": {
                "reward_responses": 8,
                "reward": TRAINING,
                "dpo": {**TRAINING, "beta": 0.1},
                "ipo": {**TRAINING, "beta": 0.2},
                "ppo": {**TRAINING, "target_kl": 6.0, "num_samples": 4},
                "lora": {"r": 16, "target_modules": "all-linear"},
                "max_new_tokens": 32,
            },
        },
        "model": "SmolLM2-135M-Instruct",
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
        "machine": {"system": "Linux", "device": "2 CPU cores"},
        "seconds": {"base": 4.2, "reward": 300.0, "dpo": 170.5, "evaluation/policies": 101.0},
        "resumed": ["dpo"],
        "rows": {"reward": 960, "dpo": 480, "ipo": 480, "ppo": 288},
        "episodes": 1152,
        "held_out": {
            "reward": {"loss": 0.7, "accuracy": 0.83, "margin": 1.9},
            "dpo": stage,
            "ipo": stage,
            "ppo": {"reward": 2.1, "objective/kl": 6.3, "response/length": 21.0, "response/eos_share": 0.6},
        },
        "reward_model": people,
        "policies": policies,
    }


def histories() -> dict[str, list[dict[str, Any]]]:
    """Noisy curves as `trainer.state.log_history` holds them, its last entry without a loss."""
    rng = random.Random(0)

    def logged(names: tuple[str, ...], steps: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for step in range(1, steps + 1):
            loss, accuracy, margin = names
            rise = 1 - math.exp(-step / 15)
            rows.append(
                {
                    "step": step,
                    loss: 0.69 - 0.3 * rise + rng.gauss(0, 0.06),
                    accuracy: min(1.0, 0.5 + 0.35 * rise + rng.gauss(0, 0.08)),
                    margin: 1.8 * rise + rng.gauss(0, 0.2),
                }
            )
        return [*rows, {"step": steps, "train_runtime": 12.0}]

    policy = ("loss", "rewards/accuracies", "rewards/margins")
    return {
        "reward": logged(("loss", "accuracy", "margin"), 60),
        "dpo": logged(policy, 30),
        "ipo": logged(policy, 5),
        "ppo": logged(("kl_coef", "objective/scores", "objective/kl"), 36),
    }


def samples(text: str = "The film is a gentle surprise.\nIt works.") -> list[dict[str, Any]]:
    """Four samples in two domains."""
    return [
        {
            "prompt": f"Write one sentence from a {domain} review. Start with: The {number}",
            "domain": domain,
            "policies": {
                name: {"text": text, "score": 0.5 - number / 2, "reward": 1.0 + number}
                for name in ("base", "dpo", "ipo", "ppo")
            },
        }
        for number in range(2)
        for domain in ("movies", "products")
    ]
