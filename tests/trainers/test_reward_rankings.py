"""RewardTrainer on rankings, soft labels, votes, auxiliary tasks and contrastive states."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.stats import kendalltau
from transformers import EvalPrediction

from hf_align.collators.rankings import vote_share
from hf_align.errors import UserError
from hf_align.losses import contrastive_loss
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.tiny import save_tiny
from tests.trainers.pairs import options
from tests.trainers.test_base import same_weights

TEXTS = ["A warm film.", "Dull.", "It was fine.", "I left.", "Great, go."]
PROMPT = "A review of a film: "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def rankings(**judgement: Any) -> Any:
    """Rows of 3, 2 and 5 responses; lists of 10 values are spread over them."""
    rows, start = [], 0
    for number, count in enumerate((3, 2, 5)):
        row: dict[str, Any] = {"prompt": PROMPT + "." * number, "responses": TEXTS[:count]}
        for name, values in judgement.items():
            row[name] = values[start : start + count]
        rows.append(row)
        start += count
    return rows


RANKS = [0, 2, 1, 1, 0, 0, -1, 1, -1, 2]
SCORES = [3.0, 1.0, 2.5, 0.0, 1.0, 4.0, -2.0, 1.0, 1.0, 0.5]
RATINGS = [[3, 1], [0], [1, 2], [2, 2], [2], [4, 4], [1, 0], [1, 1, 3], [0], [-1, 2]]


def model_of(folder: str, config: RewardModelConfig | None = None) -> RewardModel:
    torch.manual_seed(0)
    return RewardModel.from_backbone(folder, config)


def evaluate(folder: str, out: Path, rows: Any, config: RewardModelConfig | None = None, **changes: Any) -> Any:
    """A trainer, and its evaluation on the rows."""
    args = RewardConfig(**options(out, **{"per_device_eval_batch_size": 2} | changes))
    trainer = RewardTrainer(model_of(folder, config), args=args, eval_dataset=rows)
    return trainer, trainer.evaluate()


def rewards_of(trainer: RewardTrainer) -> list[list[float]]:
    """Each row's rewards, every response scored on its own."""
    data: Any = trainer.eval_dataset
    return [
        [trainer.model.score_ids([row["prompt_ids"]], [ids])[0] for ids in row["response_ids"]]
        for row in data.to_list()
    ]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def pairwise(rewards: list[list[float]], labels: Any, loss: Any, margins: Any = None) -> float:
    """Mean over rows of the mean over pairs of p * loss(d, m) + (1 - p) * loss(-d, m), by loops."""
    rows = []
    for number, row in enumerate(rewards):
        losses = []
        for i, j in itertools.combinations(range(len(row)), 2):
            p = labels(number, i, j)
            if p is not None:
                m, d = 1.0 if margins is None else margins(number, i, j), row[i] - row[j]
                losses.append(p * loss(d, m) + (1 - p) * loss(-d, m))
        rows.append(fmean(losses))
    return fmean(rows)


def by_rank(rows: list[dict[str, Any]]) -> Any:
    def label(number: int, i: int, j: int) -> float | None:
        a, b = (math.inf if rank == -1 else rank for rank in (rows[number]["ranking"][k] for k in (i, j)))
        return None if a == b == math.inf else 1.0 if a < b else 0.5 if a == b else 0.0

    return label


def test_pairwise_losses_of_rankings_are_means_over_all_pairs(folder: str, tmp_path: Path):
    rows = rankings(ranking=RANKS)
    trainer, metrics = evaluate(folder, tmp_path, rows, label_smoothing=0.1)
    rewards = rewards_of(trainer)
    smooth = lambda *place: None if (p := by_rank(rows)(*place)) is None else 0.1 + 0.8 * p  # noqa: E731
    expected = pairwise(rewards, smooth, lambda d, m: -log_sigmoid(d))
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-5)
    _, metrics = evaluate(folder, tmp_path, rows, loss_type="hinge")
    assert metrics["eval_loss"] == pytest.approx(pairwise(rewards, by_rank(rows), lambda d, m: max(0, 1 - d)), rel=1e-5)


def test_the_margin_of_two_scored_responses_is_their_difference(folder: str, tmp_path: Path):
    rows = rankings(scores=SCORES)

    def gap(number: int, i: int, j: int) -> float:
        return abs(rows[number]["scores"][i] - rows[number]["scores"][j])

    def label(number: int, i: int, j: int) -> float:
        a, b = (rows[number]["scores"][k] for k in (i, j))
        return 1.0 if a > b else 0.5 if a == b else 0.0

    cases: list[tuple[dict[str, Any], Any]] = [
        ({"margin_mode": "weight"}, lambda d, m: -m * log_sigmoid(d)),
        ({"margin_mode": "shift"}, lambda d, m: -log_sigmoid(d - m)),
        ({"margin_mode": "none"}, lambda d, m: -log_sigmoid(d)),
        ({"loss_type": "hinge"}, lambda d, m: max(0.0, m - d)),
    ]
    for changes, loss in cases:
        trainer, metrics = evaluate(folder, tmp_path, rows, **changes)
        assert metrics["eval_loss"] == pytest.approx(pairwise(rewards_of(trainer), label, loss, gap), rel=1e-5), changes


def test_labels_of_rated_responses_are_vote_shares(folder: str, tmp_path: Path):
    rows = rankings(ratings=RATINGS)
    trainer, metrics = evaluate(folder, tmp_path, rows)

    def share(number: int, i: int, j: int) -> float:
        return vote_share(rows[number]["ratings"][i], rows[number]["ratings"][j])

    expected = pairwise(rewards_of(trainer), share, lambda d, m: -log_sigmoid(d))
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-5)
    # Two responses are a pair with the share as its label, and without a label one is better for certain.
    pair = {"prompt": PROMPT, "chosen": TEXTS[0], "rejected": TEXTS[1]}
    _, rated = evaluate(folder, tmp_path, [{"prompt": PROMPT, "responses": TEXTS[:2], "ratings": [[3, 0], [0]]}])
    _, soft = evaluate(folder, tmp_path, [pair | {"label": 0.75}])
    _, hard = evaluate(folder, tmp_path, [pair])
    _, ranked = evaluate(folder, tmp_path, [{"prompt": PROMPT, "responses": TEXTS[:2], "ranking": [0, 1]}])
    assert rated["eval_loss"] == pytest.approx(soft["eval_loss"], rel=1e-6)
    assert hard["eval_loss"] == pytest.approx(ranked["eval_loss"], rel=1e-6)
    assert soft["eval_loss"] != pytest.approx(hard["eval_loss"], rel=1e-3)


def test_evaluations_of_rankings_have_a_tau_and_those_of_pairs_none(folder: str, tmp_path: Path) -> None:
    rows, pair = rankings(scores=SCORES), {"prompt": PROMPT, "chosen": TEXTS[0], "rejected": TEXTS[1]}
    best: Any = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "eval_ranked_tau"}
    trainer, metrics = evaluate(folder, tmp_path, {"ranked": rows, "pairs": [pair]}, **best)
    rewards = [trainer.model.score([row["prompt"]] * len(row["responses"]), row["responses"]) for row in rows]
    taus = [cast(Any, kendalltau(row["scores"], given)).statistic for row, given in zip(rows, rewards, strict=True)]
    assert metrics["eval_ranked_tau"] == pytest.approx(fmean(taus)) and "eval_pairs_tau" not in metrics
    with pytest.raises(UserError, match=r"'pairs_tau', .* tau would be 2 \* accuracy - 1; use pairs_accuracy"):
        evaluate(folder, tmp_path, {"ranked": rows, "pairs": [pair]}, **best | {"metric_for_best_model": "pairs_tau"})


def test_plackett_luce_is_the_likelihood_of_the_ranking(folder: str, tmp_path: Path):
    rows = rankings(ranking=RANKS)
    trainer, metrics = evaluate(folder, tmp_path, rows, loss_type="plackett_luce")
    expected = []
    for row, rewards in zip(rows, rewards_of(trainer), strict=True):
        ranks = [math.inf if rank == -1 else rank for rank in row["ranking"]]
        total = probability = 0.0
        for order in itertools.permutations(range(len(ranks))):  # agreeing orders of all orders
            p, left = 1.0, [math.exp(rewards[k]) for k in order]
            for place in range(len(order)):
                p *= left[place] / sum(left[place:])
            total += p
            ranked = [ranks[k] for k in order]
            probability += p if ranked == sorted(ranked) else 0.0
        assert total == pytest.approx(1)
        expected.append(-math.log(probability))
    assert metrics["eval_loss"] == pytest.approx(fmean(expected), rel=1e-5)
    pair = {"prompt": PROMPT, "chosen": TEXTS[0], "rejected": TEXTS[1]}
    _, plackett_luce = evaluate(folder, tmp_path, [pair], loss_type="plackett_luce")
    _, bradley_terry = evaluate(folder, tmp_path, [pair])
    assert plackett_luce["eval_loss"] == pytest.approx(bradley_terry["eval_loss"], rel=1e-6)


def test_centering_takes_twice_the_mean_reward(folder: str, tmp_path: Path):
    rows = rankings(ranking=RANKS)
    trainer, centred = evaluate(folder, tmp_path, rows, center_rewards_coefficient=0.5)
    _, plain = evaluate(folder, tmp_path, rows)
    expected = 0.5 * fmean((2 * fmean(row)) ** 2 for row in rewards_of(trainer))
    assert centred["eval_loss"] - plain["eval_loss"] == pytest.approx(expected, rel=1e-4)


def train(folder: str, out: Path, rows: Any, config: RewardModelConfig | None = None, **changes: Any) -> RewardTrainer:
    args = RewardConfig(**options(out, **{"max_steps": 2, "per_device_train_batch_size": 3} | changes))
    trainer = RewardTrainer(model_of(folder, config), args=args, train_dataset=rows)
    trainer.train(resume_from_checkpoint=changes.get("resume_from_checkpoint"))
    return trainer


TASKS = RewardModelConfig(tasks={"helpful": "regression", "tone": 3, "safe": "binary"}, projection=True)
LABELS: dict[str, list[Any]] = {
    "helpful": [0.5, None, 1.0, None, None, 2.0, 0.0, -1.0, 1.0, 0.0],
    "tone": [0, 1, None, 2, 2, None, None, None, None, 1],
    "safe": [None, None, None, None, None, None, 1, 0, 1, 0.25],
}


def test_every_layout_and_accumulation_trains_the_same(folder: str, tmp_path: Path):
    rows = [
        row | {"weight": weight} for row, weight in zip(rankings(ratings=RATINGS, **LABELS), (1, 3, 0.5), strict=True)
    ]
    weights = {"helpful": 0.5, "tone": 2.0}
    plain = train(folder, tmp_path, rows, TASKS, layout="separate", task_weights=weights)
    for changes in (
        {"layout": "branch"},
        {"layout": "branch", "row_tokens": 300},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3},
    ):
        other = train(folder, tmp_path, rows, TASKS, task_weights=weights, **changes)
        same_weights(plain.model, other.model)
        for ours, theirs in zip(plain.state.log_history[:2], other.state.log_history[:2], strict=True):
            for name in ("loss", "accuracy", "margin", "helpful/loss", "tone/accuracy", "safe/loss"):
                assert ours[name] == pytest.approx(theirs[name], abs=1e-5), (name, changes)


def test_a_term_of_a_task_is_the_mean_over_its_labels(folder: str, tmp_path: Path):
    rows = rankings(ranking=RANKS, **LABELS)
    weights = {"helpful": 0.5, "tone": 2.0, "safe": 0.0}
    trainer, metrics = evaluate(folder, tmp_path, rows, TASKS, task_weights=weights)
    expected = pairwise(rewards_of(trainer), by_rank(rows), lambda d, m: -log_sigmoid(d))
    texts = [text for row in rows for text in row["responses"]]
    predicted = trainer.model.score_tasks([row["prompt"] for row in rows for _ in row["responses"]], texts)
    labelled = {
        name: [(p, y) for p, y in zip(predicted[name], LABELS[name], strict=True) if y is not None] for name in LABELS
    }
    helpful = fmean((p - y) ** 2 for p, y in labelled["helpful"])
    tone = fmean(-math.log(p[y]) for p, y in labelled["tone"])
    safe = fmean(-(y * math.log(p) + (1 - y) * math.log(1 - p)) for p, y in labelled["safe"])
    for name, value in {
        "helpful/loss": helpful,
        "helpful/mae": fmean(abs(p - y) for p, y in labelled["helpful"]),
        "tone/loss": tone,
        "tone/accuracy": fmean(int(np.argmax(p)) == y for p, y in labelled["tone"]),
        "safe/loss": safe,
        "safe/accuracy": fmean((p > 0.5) == (y > 0.5) for p, y in labelled["safe"]),
        "loss": expected + 0.5 * helpful + 2 * tone,
    }.items():
        assert metrics[f"eval_{name}"] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("labels", [None, "tone"])
def test_the_contrastive_term_is_a_mean_over_responses_with_a_like(folder: str, tmp_path: Path, labels: str | None):
    rows = rankings(ranking=RANKS, **LABELS)
    settings = {"contrastive_coefficient": 0.3, "contrastive_temperature": 0.5, "contrastive_labels": labels}
    weights = {"task_weights": dict.fromkeys(LABELS, 0.0), "per_device_eval_batch_size": 3}
    trainer, metrics = evaluate(folder, tmp_path, rows, TASKS, **settings, **weights)
    batch = trainer.data_collator(trainer.eval_dataset.to_list())
    with torch.no_grad():
        embeddings = trainer.model.split(trainer.model(batch["branches"])).embeddings
    classes = torch.tensor([-1 if y is None else y for y in LABELS["tone"]] if labels else [0] * 3 + [1] * 2 + [2] * 5)
    losses = contrastive_loss(embeddings, classes, temperature=0.5)
    anchors = [n for n, y in enumerate(classes.tolist()) if y >= 0 and classes.tolist().count(y) > 1]
    term = float(losses[anchors].mean())
    assert metrics["eval_contrastive/loss"] == pytest.approx(term, rel=1e-4)
    _, plain = evaluate(folder, tmp_path, rows, TASKS, **weights)
    assert metrics["eval_loss"] == pytest.approx(plain["eval_loss"] + 0.3 * term, rel=1e-4)


def test_compute_metrics_gets_every_reward_best_first(folder: str, tmp_path: Path):
    seen: list[np.ndarray] = []

    def note(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(np.asarray(prediction.predictions))
        return {"rows": float(len(seen[0]))}

    rows = rankings(scores=SCORES)
    args = RewardConfig(**options(tmp_path, per_device_eval_batch_size=2))
    trainer = RewardTrainer(model_of(folder), args=args, eval_dataset=rows, compute_metrics=note)
    assert trainer.evaluate()["eval_rows"] == 3
    for row, rewards, given in zip(rows, rewards_of(trainer), seen[0], strict=True):
        order = sorted(range(len(rewards)), key=lambda k: -row["scores"][k])
        np.testing.assert_allclose(given[: len(rewards)], [rewards[k] for k in order], atol=1e-5)
        assert np.isnan(given[len(rewards) :]).all() and len(given) == 5


def votes(count: int = 4) -> Any:
    return [
        {"prompt": PROMPT + str(number), "chosen": TEXTS[number], "rejected": TEXTS[-1 - number], "votes": [1, 0, 0.5]}
        for number in (0, 1, 3, 4)[:count]
    ]


def test_drawn_votes_change_with_the_epoch_and_come_back_on_resume(folder: str, tmp_path: Path):
    rows = votes()
    settings: dict[str, Any] = {
        "max_steps": 6,
        "per_device_train_batch_size": 2,
        "label_mode": "draw",
        "save_strategy": "steps",
    }
    whole = train(folder, tmp_path / "whole", rows, save_steps=3, **settings)
    again = RewardTrainer(
        model_of(folder), args=RewardConfig(**options(tmp_path / "whole", **settings)), train_dataset=rows
    )
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))  # in the middle of the second epoch
    same_weights(whole.model, again.model)
    accumulated = train(
        folder,
        tmp_path / "other",
        rows,
        **settings | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "save_strategy": "no"},
    )
    same_weights(whole.model, accumulated.model)
    shared: dict[str, Any] = {**settings, "label_mode": "share", "save_strategy": "no"}
    share = train(folder, tmp_path / "share", rows, **shared)
    losses = [[log["loss"] for log in each.state.log_history if "loss" in log] for each in (whole, share)]
    assert any(abs(a - b) > 1e-3 for a, b in zip(*losses, strict=True))


def test_what_makes_no_sense_is_refused_before_anything_is_trained(folder: str, tmp_path: Path):
    pair: dict[str, Any] = {"prompt": PROMPT, "chosen": TEXTS[0], "rejected": TEXTS[1]}
    scored, out = rankings(scores=SCORES), options(tmp_path)
    many = {"prompt": PROMPT, "responses": [f"answer {n}" for n in range(14)], "ranking": [0] * 13 + [1]}
    refused: list[tuple[Any, dict[str, Any], str]] = [
        ([pair], {"label_mode": "draw"}, "label_mode is 'draw', and train_dataset has neither votes"),
        (scored, {"label_mode": "draw"}, "label_mode is 'draw', and train_dataset has neither votes"),
        (
            [pair | {"votes": [1, 0], "label": 0.5}, pair | {"votes": None, "label": 0.7}],
            {"label_mode": "draw"},
            r"1 row has no votes to draw from \(label_mode='draw'\) \(row 1\)",
        ),
        ([pair], {"tasks": {"contrastive": "binary"}}, "tasks has the name 'contrastive'"),
        ([pair], {"tasks": {"problem": "binary"}}, "tasks has the name 'problem'"),
        ([pair | {"label": 0.7}], {"loss_type": "plackett_luce"}, r"1 row has a soft label, which .*\(row 0\)"),
        ([pair | {"margin": 2.0}], {"loss_type": "plackett_luce"}, "a column margin, and loss_type='plackett_luce'"),
        ([many], {"loss_type": "plackett_luce"}, "more than 12 tied responses"),
        ([pair], {"tasks": {"safe": "binary"}}, "train_dataset has no column safe"),
        ([pair], {"task_weights": {"save": 1.0}, "tasks": {"safe": "binary"}}, "no task save; did you mean safe"),
        ([pair | {"safe": [2, 0]}], {"tasks": {"safe": "binary"}}, "1 row has a label of safe that is not between"),
        ([pair], {"contrastive_coefficient": 0.1, "contrastive_labels": "tone"}, "contrastive_labels is 'tone'"),
        ([pair | {"label": 7}], {}, "1 row has a label that is no number between 0 and 1"),
    ]
    for rows, changes, said in refused:
        with pytest.raises(UserError, match=said):
            RewardTrainer(folder, args=RewardConfig(**out, **changes), train_dataset=rows)
    contradictory: list[tuple[dict[str, Any], str]] = [
        ({"loss_type": "plackett_luce", "label_smoothing": 0.1}, "label_smoothing flips labels of pairs"),
        ({"contrastive_labels": "tone"}, "no effect without contrastive_coefficient"),
        ({"task_weights": {"safe": -1.0}}, "the weight of safe is -1.0; give a number from 0"),
        ({"label_smoothing": 0.5}, "label_smoothing is 0.5"),
        ({"loss_type": "listwise"}, "loss_type is 'listwise'"),
    ]
    for changes, said in contradictory:
        with pytest.raises(UserError, match=said):
            RewardConfig(**out, **changes)
    unfit: list[tuple[dict[str, Any], str]] = [
        ({"contrastive_coefficient": 0.1}, "needs a model with a projection"),
        ({"head": "mlp"}, "head is 'mlp', and the model already has head 'linear'"),
    ]
    rows = Dataset.from_list([pair])
    for changes, said in unfit:
        with pytest.raises(UserError, match=said):
            RewardTrainer(model_of(folder), args=RewardConfig(**out, **changes), train_dataset=rows)


def test_a_model_given_by_name_gets_the_head_and_tasks_of_the_config(folder: str, tmp_path: Path):
    rows: Any = [{"prompt": PROMPT, "chosen": TEXTS[0], "rejected": TEXTS[1], "chosen_safe": 1, "rejected_safe": None}]
    settings = {"pooling": "mean", "head": "mlp", "tasks": {"safe": "binary"}, "contrastive_coefficient": 0.1}
    best: Any = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "safe/accuracy"}
    trainer = RewardTrainer(
        folder,
        args=RewardConfig(**options(tmp_path, **settings, **best)),
        train_dataset=Dataset.from_list(rows * 2),
        eval_dataset=rows,
    )
    assert trainer.model.reward_config == RewardModelConfig("mean", "mlp", {"safe": "binary"}, projection=True)
    trainer.train()
    logged = {name for log in trainer.state.log_history for name in log}
    assert {"safe/loss", "safe/accuracy", "contrastive/loss", "eval_safe/accuracy"} <= logged
    trainer.save_model()
    again = RewardTrainer(str(tmp_path), args=RewardConfig(**options(tmp_path / "2", **settings)), train_dataset=rows)
    assert again.model.reward_config == trainer.model.reward_config
    changed = settings | {"head": "attention", "pooling": "last"}
    with pytest.raises(UserError, match="head is 'attention', and the model already has head 'mlp'"):
        RewardTrainer(str(tmp_path), args=RewardConfig(**options(tmp_path / "2", **changed)), train_dataset=rows)
