"""Options of `Trainer` do here what the table says."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_jit_checkpoint import JITCheckpointCallback

from hf_align import DPOConfig, PPOConfig
from hf_align.errors import UserError
from hf_align.progress import Silent
from hf_align.trainers.callbacks import train
from tests.trainers.arguments.runs import DEMONSTRATIONS, ROLLOUTS, dpo, ppo, reward, sft
from tests.trainers.pairs import options, pairs
from tests.trainers.ppo.run import build
from tests.trainers.test_base import same_weights
from tests.trainers.toy import varied_prompts

# ---- options that change no number ----

QUIET: dict[str, Any] = {
    "activation_checkpointing": True,
    "activation_checkpointing_kwargs": {"every_n_layers": 2},
    "debug": "underflow_overflow",
    "disable_tqdm": False,
    "full_determinism": True,
    "torch_empty_cache_steps": 1,
    "local_rank": 0,
    "accelerator_config": {"non_blocking": True},
    "restore_callback_states_from_checkpoint": True,
    "do_train": True,
    "do_predict": True,
    "run_name": "quiet",
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 1,
    "save_only_model": True,
}
WORKERS: dict[str, Any] = {
    "dataloader_num_workers": 1,
    "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 1,
    "dataloader_multiprocessing_context": "fork",
}


MORE = {dpo: WORKERS, sft: {"remove_unused_columns": False}}


@pytest.fixture
def nondeterministic_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("make", [reward, dpo, ppo, sft])
def test_options_that_are_about_no_number_change_none_and_a_model_saved_alone_is_not_resumed(
    make: Any, nondeterministic_afterwards: None, tiny_model_dir: str, tmp_path: Path
) -> None:
    model = {"model": tiny_model_dir} if make is reward else {}
    plain = make(tmp_path / "plain", **model, max_steps=2)
    plain.train()
    quiet = make(tmp_path / "quiet", **model, max_steps=2, **QUIET, **MORE.get(make, {}))
    assert torch.are_deterministic_algorithms_enabled()
    quiet.train()
    same_weights(quiet.model, plain.model, atol=1e-6, rtol=1e-6)  # recomputing adds in another order
    (checkpoint,) = (tmp_path / "quiet").glob("checkpoint-*")
    assert checkpoint.name == "checkpoint-2" and not list(checkpoint.glob("optimizer*"))
    with pytest.raises(UserError, match="checkpoint-2 has no optimizer, as save_only_model leaves it out, so its run"):
        quiet.train(resume_from_checkpoint=True)


def test_memory_metrics_are_measured(tmp_path: Path) -> None:
    assert "eval_mem_cpu_alloc_delta" in dpo(tmp_path, skip_memory_metrics=False).evaluate()


# ---- optimizer and schedule ----


def test_optimizer_and_schedule_are_made_of_the_options(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        **{"optim": "adamw_torch", "learning_rate": 0.5, "weight_decay": 0.25},
        **{"adam_beta1": 0.5, "adam_beta2": 0.75, "adam_epsilon": 0.125, "warmup_steps": 2},
        **{"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1.0}},
    }
    trainer = dpo(tmp_path, **changes)
    trainer.create_optimizer_and_scheduler(num_training_steps=10)
    group = cast(Any, trainer.optimizer).param_groups[0]
    assert [group[name] for name in ("betas", "eps", "weight_decay")] == [(0.5, 0.75), 0.125, 0.25]
    rates = [cast(Any, trainer.lr_scheduler).lr_lambdas[0](step) for step in range(10)]
    cosine = [0.5 + 0.5 * math.cos(2 * math.pi * step / 8) for step in range(8)]
    assert rates == pytest.approx([0.0, 0.5, *cosine])
    with_momentum = dpo(tmp_path, optim="sgd", optim_args="momentum=0.5, nesterov=true").create_optimizer()
    assert [with_momentum.param_groups[0][name] for name in ("momentum", "nesterov")] == [0.5, True]


def test_a_step_is_clipped_to_max_grad_norm(tmp_path: Path) -> None:
    trainer = dpo(tmp_path, max_grad_norm=0.5, learning_rate=0.1)
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    trainer.train()
    assert trainer.state.log_history[0]["grad_norm"] > 0.5
    moved = [after - old for after, old in zip(trainer.model.parameters(), before, strict=True)]
    assert math.sqrt(sum(float((each**2).sum()) for each in moved)) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
@pytest.mark.parametrize(("metric", "mode"), [(None, "min"), ("rewards/accuracies", "max")])
def test_a_schedule_follows_the_best_metric_in_its_direction(
    schedule: str, metric: str | None, mode: str, tmp_path: Path
) -> None:
    following = {"lr_scheduler_type": schedule, "metric_for_best_model": metric, "eval_strategy": "steps"}
    args = DPOConfig(**options(tmp_path, **following))
    assert args.lr_scheduler_kwargs == {"mode": mode}
    chosen = DPOConfig(**options(tmp_path, **following, lr_scheduler_kwargs={"mode": "min", "patience": 3}))
    assert chosen.lr_scheduler_kwargs == {"mode": "min", "patience": 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_scheduler_type": "reduce_lr_on_plateau"},
        {"load_best_model_at_end": True, "save_strategy": "best"},
        {"early_stopping_patience": 2, "save_strategy": "best"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_policy_by_rollouts_has_no_metric_to_follow_unless_one_is_named(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    shape = {**ROLLOUTS, "eval_strategy": "steps", **changes}
    option = next(iter(changes))
    with pytest.raises(UserError, match=f"{option} is .* follows metric_for_best_model, which is missing; .* 'reward'"):
        PPOConfig(**options(tmp_path, **shape))
    assert PPOConfig(**options(tmp_path, **shape, metric_for_best_model="reward")).greater_is_better


def test_the_rate_of_a_policy_by_rollouts_falls_where_the_reward_stays(tmp_path: Path) -> None:
    following = {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "reward"}
    kwargs = {"lr_scheduler_kwargs": {"patience": 0, "factor": 0.5}, "eval_strategy": "steps", "eval_steps": 1}
    trainer = ppo(tmp_path, **following, **kwargs, learning_rate=1e-6, max_steps=3)
    trainer.train()
    rates = [log["learning_rate"] for log in trainer.state.log_history if "loss" in log]
    assert rates == pytest.approx([1e-6, 1e-6, 5e-7]), "the first evaluation is the best so far"


def test_labels_of_demonstrations_are_smoothed(tmp_path: Path) -> None:
    trainer: Any = sft(tmp_path, label_smoothing_factor=0.2)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    labels = batch["labels"]
    with torch.no_grad():
        trainer.model.eval()
        loss = float(trainer.compute_loss(trainer.model, dict(batch)))
        logps = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(
            -1
        )
    shown, targets = logps[:, :-1][labels[:, 1:] != -100], labels[:, 1:][labels[:, 1:] != -100]
    by_hand = 0.8 * -shown.gather(1, targets[:, None]).mean() - 0.2 * shown.mean()
    assert loss == pytest.approx(float(by_hand), rel=1e-4)


# ---- rows ----


def order(trainer: Any) -> list[list[int]]:
    """The training batches' rows of one epoch, by their place in the data."""
    prompts = [tuple(row["prompt_ids"]) for row in trainer.train_dataset]
    batches = trainer.get_train_dataloader()
    return [[prompts.index(tuple(ids)) for ids, _ in batch["branches"].documents(9)] for batch in batches]


def test_rows_are_drawn_as_the_options_say(tmp_path: Path) -> None:
    assert order(dpo(tmp_path, train_sampling_strategy="sequential")) == [[0, 1], [2, 3], [4]]
    seeds: dict[str, Any] = {
        "by seed": {"seed": 3},
        "by both": {"seed": 5, "data_seed": 3},
        "by another": {"seed": 3, "data_seed": 5},
    }
    orders = {name: order(dpo(tmp_path, **each)) for name, each in seeds.items()}
    assert orders["by seed"] == orders["by both"] != orders["by another"]
    whole = [[0, 1], [2, 3], [4]]
    dropping = dpo(tmp_path, train_sampling_strategy="sequential", dataloader_drop_last=True, **WORKERS)
    assert order(dropping) == whole[:2]
    assert len(dropping.get_eval_dataloader()) == 1 and dropping.evaluate()["eval_loss"] > 0
    dropping.args.per_device_eval_batch_size = 2
    assert len(dropping.predict(pairs(3)).predictions) == 3, "evaluations keep their last rows"
    assert dropping.args.dataloader_drop_last


def test_demonstrations_are_grouped_by_length(tmp_path: Path) -> None:
    trainer = sft(tmp_path, train_sampling_strategy="group_by_length")
    first = next(iter(trainer.get_train_dataloader()))["input_ids"]
    assert first.shape[1] == max(len(row["input_ids"]) for row in cast(Any, trainer.train_dataset))


def test_workers_and_seeds_of_a_curriculum(tiny_model_dir: str, tmp_path: Path) -> None:
    staged: dict[str, Any] = {"model": tiny_model_dir, "curriculum": {"stages": 2}, "max_steps": -1}
    others = {"others": {"train_dataset": pairs(6, margin=True)}}
    by_seed = reward(tmp_path, **staged, **others, seed=3)
    by_both = reward(tmp_path, **staged, **others, seed=5, data_seed=3, dataloader_in_order=False, **WORKERS)
    loaders = [each.get_train_dataloader() for each in (by_seed, by_both)]
    assert list(loaders[0].batch_sampler) == list(loaders[1].batch_sampler)  # type: ignore[arg-type]
    assert loaders[1].num_workers == 1 and not loaders[1].in_order and loaders[1].prefetch_factor == 1
    assert cast(Any, loaders[1].multiprocessing_context).get_start_method() == "fork"


def test_prompts_of_rollouts_are_drawn_by_data_seed(tmp_path: Path) -> None:
    drawn = []
    for seeds in ({"seed": 3}, {"seed": 5, "data_seed": 3}, {"seed": 3, "data_seed": 5}):
        trainer = ppo(tmp_path, others={"train_dataset": varied_prompts(40)}, **seeds)
        drawn.append([row["prompt_ids"] for row in trainer.rows_of(3)])
    assert drawn[0] == drawn[1] != drawn[2]


# ---- evaluations and logs ----


def test_evaluations_logs_and_tokens_come_when_the_options_say(tmp_path: Path) -> None:
    counting = {"include_num_input_tokens_seen": "non_padding", "train_sampling_strategy": "sequential"}
    at = {"eval_on_start": True, "eval_strategy": "steps", "eval_steps": 1, "eval_delay": 2}
    trainer = dpo(
        tmp_path, **counting, **at, max_steps=-1, num_train_epochs=1, logging_steps=2, logging_first_step=True
    )
    trainer.train()
    history = trainer.state.log_history
    assert [log["step"] for log in history if "eval_loss" in log] == [0, 2, 3]
    assert [log["step"] for log in history if "loss" in log] == [1, 2]
    rows = [[len(row["prompt_ids"]), *map(len, row["response_ids"])] for row in trainer.train_dataset]
    assert trainer.state.num_input_tokens_seen == sum(map(sum, rows))


def test_tokens_of_updates_are_counted_with_their_padding(tmp_path: Path) -> None:
    trainer = ppo(tmp_path, include_num_input_tokens_seen="all", max_steps=2, logging_strategy="epoch")
    trainer.train()
    halves = [trainer.lay_out(trainer.rollout, rows) for rows in (slice(0, 4), slice(4, 8))]
    assert trainer.state.num_input_tokens_seen == sum(each.input_ids.numel() for each in halves)
    assert [log["step"] for log in trainer.state.log_history if "loss" in log] == [2], "at the end"


@pytest.mark.parametrize(
    ("changes", "others", "message"),
    [
        ({"report_to": "comet_ml"}, {}, "report_to: comet_ml is not installed; pip install it, or use none"),
        ({"eval_on_start": True}, {"eval_dataset": None}, "eval_on_start is True and there is no eval_dataset"),
        (
            {"batch_eval_metrics": True},
            {"compute_metrics": lambda prediction: {}},
            "batch_eval_metrics calls compute_metrics with compute_result, True at the last batch, which yours",
        ),
    ],
    ids=["report_to", "eval_on_start", "batch_eval_metrics"],
)
def test_what_depends_on_arguments_is_refused_before_anything_is_loaded(
    changes: dict[str, Any], others: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        reward(tmp_path, model="nowhere", others=others, **changes)


# ---- resuming ----


class Terminate(TrainerCallback):
    """SIGTERM in a step, which goes on when the signal's timer has asked for a checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
            for thread in threading.enumerate():
                if isinstance(thread, threading.Timer):
                    thread.join()


def test_a_checkpoint_on_sigterm_resumes_exactly(tmp_path: Path) -> None:
    """Its fifth step begins a rollout, after which a reference has moved, and a controller its coefficient."""
    changes: dict[str, Any] = {"max_steps": 7, "save_strategy": "no", "enable_jit_checkpoint": True}
    handler = signal.getsignal(signal.SIGTERM)
    stopped = build(tmp_path / "cut", 1, [Terminate(4)], **changes)
    (callback,) = (each for each in stopped.callback_handler.callbacks if isinstance(each, JITCheckpointCallback))
    cast(Any, callback.jit_manager).kill_wait = 0
    with pytest.raises(KeyboardInterrupt):  # a command says how to go on, and doesn't save what is half trained
        train(stopped, Silent(), "ppo")
    assert signal.getsignal(signal.SIGTERM) == handler
    (saved,) = (tmp_path / "cut").glob("checkpoint-*")
    assert saved.name == "checkpoint-5"
    resumed = build(tmp_path / "cut", 1, **changes)
    resumed.train(resume_from_checkpoint=True)
    whole = build(tmp_path / "whole", 1, **changes)  # now: each gives the signal back as it had got it
    whole.train()
    same_weights(resumed.model, whole.model, atol=0, rtol=0)


def test_demonstrations_go_on_waiting_for_a_better_model_after_a_resume(tmp_path: Path) -> None:
    best = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    still = {"learning_rate": 0.0, "load_best_model_at_end": True, "max_steps": 5}

    def run(checkpoint: str | None) -> int:
        others = {"eval_dataset": DEMONSTRATIONS.select(range(2)), "callbacks": [EarlyStoppingCallback(2)]}
        trainer = sft(tmp_path, **best, **still, others=others)
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer.state.global_step

    assert run(None) == run(str(tmp_path / "checkpoint-2")) == 3


def test_without_skipping_data_a_resumed_run_begins_the_epoch_again(tmp_path: Path) -> None:
    drawn: list[tuple[int, ...]] = []
    saving = {"save_strategy": "steps", "save_steps": 1, "train_sampling_strategy": "sequential"}
    first = dpo(tmp_path, **saving)
    first.train()
    again = dpo(tmp_path, **saving, max_steps=2, ignore_data_skip=True)
    collate = again.data_collator

    def watched(rows: list[dict[str, Any]]) -> Any:
        drawn.append(tuple(rows[0]["prompt_ids"]))
        return collate(rows)

    again.data_collator = watched
    again.train(resume_from_checkpoint=True)
    assert drawn[0] == tuple(again.train_dataset[0]["prompt_ids"])
