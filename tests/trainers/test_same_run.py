"""A run is resumed with its own options and data, or what differs is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig

from hf_align import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer, PPOTrainer, RewardConfig, RewardTrainer
from hf_align.errors import UserError
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.trainer import OnlineDPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.same_run import SETTINGS, compare
from tests.tiny import save_tiny
from tests.trainers.pairs import options, text_pairs
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

SAVING: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch", "learning_rate": 0.01}
PAIRS = {"dpo": (DPOTrainer, DPOConfig), "ipo": (IPOTrainer, IPOConfig), "reward": (RewardTrainer, RewardConfig)}
SAMPLED = {"ppo": (PPOTrainer, PPOConfig), "online": (OnlineDPOTrainer, OnlineDPOConfig)}
ROWS, OTHER_ROWS = text_pairs(4), text_pairs(5)


def other_reward(prompts: list[str], responses: list[str]) -> list[float]:
    return [0.5 * len(response) for response in responses]


def build(kind: str, out: Path, rows: Dataset | None = None, reward: Any = None, **changes: Any) -> Any:
    settings = {**SAVING, **changes}
    folder = settings.pop("output_dir", out)
    if kind in SAMPLED:
        trainer, config = SAMPLED[kind]
        passes = {"num_epochs": 1, "num_samples": 2} if kind == "online" else {"num_ppo_epochs": 1}
        return trainer(
            toy_model(),
            args=config(**options(out, **{"max_new_tokens": 2, **passes, **settings})),
            train_dataset=varied_prompts(8) if rows is None else rows,
            processing_class=toy_tokenizer(),
            reward=reward or toy_reward(3),
        )
    trainer, config = PAIRS[kind]
    return trainer(
        str(out.parent / "model"),
        args=config(**options(folder, **settings)),
        train_dataset=ROWS if rows is None else rows,
        peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The output folder of a run of one step of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    save_tiny(folder / "model")
    for kind in ("dpo", "reward", "ppo", "online"):
        build(kind, folder / kind).train()
    return {kind: folder / kind for kind in ("dpo", "reward", "ppo", "online")}


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("dpo", {"beta": 0.5, "seed": 1}, "with beta 0.1, not 0.5; with seed 0, not 1; give the same"),
        ("dpo", {"rows": OTHER_ROWS}, r"with other rows in train_dataset \(4, not 5\)"),
        ("dpo", {"rows": ROWS.select([0, 2, 1, 3])}, "with other rows in train_dataset; give"),
        ("dpo", {"optim": "sgd"}, "with optim 'adamw_torch', not 'sgd'"),
        ("dpo", {"gradient_accumulation_steps": 2}, r"with 2 rows in a step \(per_device.* \* processes\), not 4"),
        ("dpo", {"learning_rate": 0.1}, "with learning_rate 0.01, not 0.1, which the saved optimizer keeps"),
        ("ipo", {}, "with loss_type 'sigmoid', not 'ipo'"),
        ("reward", {"loss_type": "hinge"}, "with loss_type 'bradley_terry', not 'hinge'"),
        ("reward", {"rows": OTHER_ROWS}, "other rows in train_dataset"),
        ("ppo", {"clip_range": 0.1}, "with clip_range 0.2, not 0.1"),
        ("ppo", {"reward": other_reward}, "with reward '.*', not 'other_reward'"),
        ("online", {"beta": 0.5}, "with beta 0.1, not 0.5"),
        ("online", {"rows": varied_prompts(9)}, "other rows in train_dataset"),
    ],
)
def test_what_would_mix_two_runs_is_refused(
    kind: str, changes: dict[str, Any], named: str, runs: dict[str, Path]
) -> None:
    out = runs["dpo" if kind == "ipo" else kind]
    trainer = build(kind, out, max_steps=2, **changes)
    with pytest.raises(UserError, match=f"^resume_from_checkpoint: .*checkpoint-1 was trained .*{named}"):
        trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 0


def test_what_is_free_isnt_mentioned_and_what_rounds_is(
    runs: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = str(runs["dpo"] / "checkpoint-1")
    free = {"max_steps": 2, "save_steps": 5, "logging_steps": 7, "output_dir": str(runs["dpo"] / "other")}
    trainer = build("dpo", runs["dpo"], **free)
    trainer.train(resume_from_checkpoint=checkpoint)
    assert trainer.state.global_step == 2 and "goes on" not in caplog.text
    batches = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "layout": "separate"}
    build("dpo", runs["dpo"], **free, **batches).train(resume_from_checkpoint=checkpoint)
    assert (
        "checkpoint-1, which was trained with gradient_accumulation_steps 1, not 2; with layout 'auto', not 'separate'"
        in caplog.text
    )


def test_two_runs_are_mixed_on_request(runs: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    out = str(runs["reward"] / "other")
    trainer = build("reward", runs["reward"], seed=2, max_steps=2, output_dir=out, resume_with_changes=True)
    trainer.train(resume_from_checkpoint=str(runs["reward"] / "checkpoint-1"))
    assert trainer.state.global_step == 2 and "was trained with seed 0, not 2" in caplog.text


def test_a_checkpoint_of_an_earlier_version_resumes_with_the_optimizer_that_it_has(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    out = tmp_path / "run"
    build("dpo", out).train()
    (out / "checkpoint-1" / SETTINGS).unlink()
    with pytest.raises(UserError, match="was trained with another optimizer than optim='sgd', and its state is of no"):
        build("dpo", out, optim="sgd", max_steps=2).train(resume_from_checkpoint=True)
    build("dpo", out, beta=0.5, max_steps=2).train(resume_from_checkpoint=True)


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "options": {"seed": 0, "bf16": False},
        "rows_per_step": 8,
        "processes": 2,
        "data": {"train_a": {"rows": 2, "fingerprint": "x"}, "eval": {"rows": 3, "fingerprint": "y"}},
        "scored_by": {},
        **changes,
    }


def test_differences_by_kind() -> None:
    assert compare(settings(), settings(), per_process=True).refused == []
    fewer = compare(settings(), settings(processes=1), per_process=False)
    assert (fewer.refused, fewer.told) == ([], ["2 processes, not 1"]), "the rows of a step are the same"
    assert compare(settings(), settings(processes=1), per_process=True).refused == ["2 processes, not 1"]
    rows = {"train_a": {"rows": 2, "fingerprint": "z"}, "eval": {"rows": 4, "fingerprint": "y"}}
    data = compare(settings(), settings(data=rows), per_process=False)
    assert (data.refused, data.told) == (["other rows in train_dataset[a]"], ["other rows in eval_dataset (3, not 4)"])
    assert compare(settings(), settings(data={}), per_process=False).refused == [], "known to process 0 only"
    new = compare(settings(), settings(options={"bf16": True, "later_option": 1}), per_process=False)
    assert (new.refused, new.told) == ([], ["bf16 False, not True"]), "of another version"


def test_settings_hold_no_secret_and_no_folder(runs: dict[str, Path]) -> None:
    saved = (runs["ppo"] / "checkpoint-1" / SETTINGS).read_text()
    assert "token" not in json.loads(saved)["options"] and str(runs["ppo"]) not in saved
