"""Training with a reference that follows the policy: when it moves, what the loss is then, checkpoints, refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.dpo_config import DPOConfig as TheirDPOConfig
from trl.trainer.dpo_trainer import DPOTrainer as TheirDPOTrainer

from hf_align.errors import UserError
from hf_align.feedback import FunctionJudge
from hf_align.models.loading import load_policy
from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.trainer import OnlineDPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from tests.trainers.pairs import options, pairs, text_pairs
from tests.trainers.test_base import same_weights
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

SYNC: dict[str, Any] = {"sync_ref_model": True, "ref_model_sync_steps": 2}


def lora(**changes: Any) -> LoraConfig:
    return LoraConfig(**{"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes})


class Record(TrainerCallback):
    """Weights of policy and reference, by the policy's names: before the first step, then after each."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.policy: list[dict[str, Tensor]] = []
        self.reference: list[dict[str, Tensor]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on_step_end(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        policy, reference = self.trainer.model.model, self.trainer.reference
        source = policy if reference.module is None else reference.module.model
        self.policy.append({n: w.detach().clone() for n, w in policy.named_parameters() if w.requires_grad})
        named = {
            n.replace(".reference.", ".default."): w.detach().clone()
            for n, w in source.named_parameters()
            if reference.module is not None or ".reference." in n
        }
        self.reference.append(named)


def by_hand(record: Record, alpha: float, moves: list[int]) -> dict[str, Tensor]:
    """The reference after moves towards the policy as it was after these steps, in float64."""
    average = {name: weight.double() for name, weight in record.reference[0].items()}
    for step in moves:
        for name, weight in record.policy[step].items():
            average[name] = alpha * weight.double() + (1 - alpha) * average[name]
    return average


def response_logps(model: Any, row: Any) -> Tensor:
    """Sums `[2]` of a row's response tokens' log-probs, from plain forwards."""
    sums = []
    for response in row["response_ids"]:
        ids = torch.tensor([[*row["prompt_ids"], *response]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(row["prompt_ids"]) - 1 : -1]
        sums.append(logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum())
    return torch.stack(sums)


def with_weights(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """The model with these of its weights."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)
    return model.eval()


@pytest.mark.parametrize("how", ["new adapter", "incoming adapter", "full", "explicit"])
def test_it_moves_between_two_steps_and_the_next_loss_is_from_there(tiny_model_dir: str, tmp_path: Path, how: str):
    def model() -> Any:
        made = load_policy(tiny_model_dir)
        return get_peft_model(made, lora(init_lora_weights=False)) if how == "incoming adapter" else made

    given: dict[str, Any] = {"peft_config": lora()} if how == "new adapter" else {}
    if how == "explicit":
        given["ref_model"] = load_policy(tiny_model_dir)
    record, torch_seed = Record(), 3
    torch.manual_seed(torch_seed)
    args = DPOConfig(**options(tmp_path, **SYNC, ref_model_mixup_alpha=0.6, max_steps=5, per_device_train_batch_size=8))
    trainer = DPOTrainer(model(), args=args, train_dataset=pairs(), callbacks=[record], **given)
    record.trainer = trainer
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert logs[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert [log["reference/moves"] for log in logs] == [0, 0, 1, 1, 2]
    # The policy after step 2 moves the reference of steps 3 and 4, that after step 4 the reference of step 5.
    for step, moves in enumerate([[], [], [], [2], [2], [2, 4]]):
        expected = by_hand(record, 0.6, moves)
        for name, weight in record.reference[step].items():
            torch.testing.assert_close(weight.double(), expected[name], atol=1e-6, rtol=1e-5, msg=f"{step} {name}")
    moved = max((record.reference[5][name] - record.reference[0][name]).abs().max() for name in record.policy[0])
    assert moved > 1e-3
    # Step 3's loss, computed by plain models that hold these weights.
    torch.manual_seed(torch_seed)
    policy, reference = (get_peft_model(model(), lora()) if how == "new adapter" else model() for _ in range(2))
    with_weights(policy, record.policy[2])
    with_weights(reference, by_hand(record, 0.6, [2]))
    losses = []
    for row in cast(Any, trainer.train_dataset):
        ratios = response_logps(policy, row) - response_logps(reference, row)
        losses.append(-nn.functional.logsigmoid(0.1 * (ratios[0] - ratios[1])))
    assert logs[2]["loss"] == pytest.approx(float(torch.stack(losses).mean()), abs=1e-5)
    assert logs[1]["loss"] < logs[2]["loss"], "nearer to its reference, the policy prefers the chosen by less"


def test_full_fine_tuning_ends_with_trl_s_weights(tiny_model_dir: str, tmp_path: Path):
    changes = {**SYNC, "ref_model_mixup_alpha": 0.7, "max_steps": 4, "per_device_train_batch_size": 8}
    ours = DPOTrainer(
        load_policy(tiny_model_dir), args=DPOConfig(**options(tmp_path, **changes)), train_dataset=text_pairs(8)
    )
    theirs = TheirDPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        args=TheirDPOConfig(**options(tmp_path, gradient_checkpointing=False, **changes)),
        train_dataset=text_pairs(8),
        processing_class=AutoTokenizer.from_pretrained(tiny_model_dir),
    )
    for trainer in (ours, theirs):
        trainer.train()
    losses = [[log["loss"] for log in trainer.state.log_history if "loss" in log] for trainer in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][2] > losses[0][1]
    same_weights(ours.model.model, theirs.model, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("adapter", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_resumed_run_ends_bitwise_where_an_uninterrupted_one_does(tiny_model_dir: str, tmp_path: Path, adapter: bool):
    def run(out: Path, **changes: Any) -> DPOTrainer:
        saved = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch", "max_steps": 6}
        args = DPOConfig(**options(out, **{**SYNC, **saved, "learning_rate": 0.01, **changes}))
        peft_config = lora() if adapter else None
        return DPOTrainer(load_policy(tiny_model_dir), args=args, train_dataset=pairs(), peft_config=peft_config)

    whole = run(tmp_path)
    whole.train()
    for step in (3, 4):  # within an interval, and at its end, before the reference moves
        resumed = run(tmp_path / "resumed", save_strategy="no")
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert resumed.state.global_step == 6
        same_weights(whole.model, resumed.model, atol=0, rtol=0)
        if not adapter:
            same_weights(whole.reference.module, resumed.reference.module, atol=0, rtol=0)
        trained = [name for name, weight in resumed.model.named_parameters() if weight.requires_grad]
        assert not any(".reference." in name for name in trained)
    fixed = run(tmp_path / "fixed", sync_ref_model=False, ref_model_sync_steps=512)
    with pytest.raises(UserError, match="has a reference that moved"):
        fixed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    (tmp_path / "checkpoint-4" / "resume.json").unlink()  # an earlier version's
    (tmp_path / "checkpoint-4" / "reference.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no reference\.safetensors, so it was saved without sync_ref_model"):
        run(tmp_path / "resumed").train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_the_best_checkpoint_s_reference_comes_back_with_it(tiny_model_dir: str, tmp_path: Path):
    changes = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "best", "load_best_model_at_end": True}
    best = {"metric_for_best_model": "loss", "greater_is_better": True}  # the worst: an earlier one than the last
    args = DPOConfig(**options(tmp_path, **SYNC, **changes, **best, max_steps=4, ref_model_mixup_alpha=1.0))
    record = Record()
    trainer = DPOTrainer(
        load_policy(tiny_model_dir),
        args=args,
        train_dataset=pairs(),
        eval_dataset=pairs(),
        callbacks=[record],
        peft_config=lora(),
    )
    record.trainer = trainer
    trainer.train()
    step = int(str(trainer.state.best_model_checkpoint).rpartition("-")[2])
    losses = {log["step"]: log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log}
    assert step == max(losses, key=lambda each: losses[each]) < 4
    assert trainer.evaluate()["eval_loss"] == losses[step]
    assert losses[2] < math.log(2) - 1e-3, "an evaluation after step 2 is before the reference moves"


def test_a_saved_model_is_the_policy_alone(tiny_model_dir: str, tmp_path: Path):
    args = DPOConfig(**options(tmp_path, **SYNC, max_steps=3, save_strategy="steps", save_steps=3))
    trainer = DPOTrainer(load_policy(tiny_model_dir), args=args, train_dataset=pairs(), peft_config=lora())
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    assert not (tmp_path / "final" / "reference.safetensors").exists()
    assert [path for path in (tmp_path / "final").iterdir() if path.is_dir()] == []
    for folder in ("final", "checkpoint-3"):
        again = PeftModel.from_pretrained(load_policy(tiny_model_dir), tmp_path / folder)
        assert list(again.peft_config) == ["default"]
        with torch.no_grad():
            ids = torch.tensor([[5, 6, 7]])
            assert torch.equal(again(ids).logits, cast(Any, trainer.model.model).eval()(ids).logits)


def test_ppo_scores_each_rollout_with_the_reference_of_its_start(tmp_path: Path):
    """KLs are to the current reference, which stays the same within a rollout."""
    args = PPOConfig(
        **options(
            tmp_path,
            **{**SYNC, "ref_model_sync_steps": 4, "max_steps": 6, "ref_model_mixup_alpha": 0.6},
            per_device_train_batch_size=4,
            num_ppo_epochs=2,
            max_new_tokens=3,
            learning_rate=0.5,
            kl_controller="fixed",
        )
    )
    rollouts: list[Any] = []

    class Rollouts(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % 2 == 1:
                rollouts.append(trainer.rollout)

    record = Record()
    peft_config = lora()
    trainer = PPOTrainer(
        toy_model(),
        args=args,
        train_dataset=varied_prompts(8),
        processing_class=toy_tokenizer(),
        reward=toy_reward(3),
        callbacks=[record, Rollouts()],
        peft_config=peft_config,
    )
    record.trainer = trainer
    trainer.train()
    logs = {log["step"]: log for log in trainer.state.log_history if "objective/kl" in log}
    kls = []
    for number, moves in enumerate([[], [], [4]]):  # rollouts of two steps; the reference moves after four
        reference = with_weights(get_peft_model(toy_model(), peft_config), by_hand(record, 0.6, moves))
        policy = with_weights(get_peft_model(toy_model(), peft_config), record.policy[2 * number])
        rollout = rollouts[number]
        rows = [
            {"prompt_ids": prompt, "response_ids": [response]}
            for prompt, response in zip(rollout.prompt_ids, rollout.response_ids, strict=True)
        ]
        expected = torch.cat([response_logps(reference, row) for row in rows])
        torch.testing.assert_close((rollout.tokens["ref_logps"] * rollout.mask).sum(1), expected, atol=1e-4, rtol=0)
        kl = torch.cat([response_logps(policy, row) for row in rows]) - expected
        assert logs[2 * number + 1]["objective/kl"] == pytest.approx(float(kl.mean()), abs=1e-4)
        kls.append(float(kl.mean()))
    assert kls[0] == pytest.approx(0, abs=1e-5) and abs(kls[1]) > 1e-3


@pytest.mark.parametrize("config", [DPOConfig, IPOConfig, OnlineDPOConfig, PPOConfig])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sync_ref_model": True, "ref_model_mixup_alpha": 0.0}, "ref_model_mixup_alpha is 0.0"),
        ({"sync_ref_model": True, "ref_model_mixup_alpha": 1.1}, "ref_model_mixup_alpha is 1.1"),
        ({"sync_ref_model": True, "ref_model_sync_steps": 0}, "ref_model_sync_steps is 0"),
        ({"ref_model_mixup_alpha": 0.5}, "ref_model_mixup_alpha is 0.5 and sync_ref_model is off"),
        ({"ref_model_sync_steps": 64}, "ref_model_sync_steps is 64 and sync_ref_model is off"),
        ({"sync_ref_model": True, "fsdp": True}, "sync_ref_model averages whole weights"),
    ],
)
def test_options_without_meaning_are_refused(tmp_path: Path, config: Any, changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        config(**{**options(tmp_path), **changes})


def test_the_defaults_are_trl_s(tmp_path: Path):
    ours, theirs = DPOConfig(**options(tmp_path)), TheirDPOConfig(**options(tmp_path))
    for name in ("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_log_probs_of_before_training_do_not_go_with_it(tmp_path: Path):
    with pytest.raises(UserError, match=r"precompute_ref_log_probs scores .* leave one of them out"):
        DPOConfig(**options(tmp_path, sync_ref_model=True, precompute_ref_log_probs=True))


@pytest.mark.parametrize(("every", "message"), [(6, "multiple, 4 or 8"), (3, "multiple, 4")])
def test_a_move_within_a_rollout_is_refused(tmp_path: Path, every: int, message: str):
    for config in (PPOConfig, OnlineDPOConfig):
        epochs = {config.epochs_option: 2, "num_mini_batches": 2}
        with pytest.raises(
            UserError, match=f"ref_model_sync_steps is {every}, and a rollout has 4 steps: .* {message}"
        ):
            config(**options(tmp_path, sync_ref_model=True, ref_model_sync_steps=every, **epochs))


@pytest.mark.parametrize("how", ["new", "object", "folder"])
def test_a_whole_model_is_no_reference_of_an_adapter(tiny_model_dir: str, tmp_path: Path, how: str):
    model: Any = tiny_model_dir
    if how != "new":
        model = get_peft_model(load_policy(tiny_model_dir), lora())
    if how == "folder":
        model.save_pretrained(str(tmp_path / "adapter"))
        model = str(tmp_path / "adapter")
    peft_config = lora() if how == "new" else None
    args = DPOConfig(**options(tmp_path, **SYNC))
    with pytest.raises(UserError, match=r"ref_model is given, and sync_ref_model .* leave ref_model out"):
        DPOTrainer(model, "nowhere", args=args, train_dataset=pairs(2), peft_config=peft_config)


def length(prompts: list[str], responses: list[str]) -> list[float]:
    """A judge that prefers long responses."""
    return [float(len(response)) for response in responses]


@pytest.mark.parametrize("incoming", [False, True])
def test_evaluations_also_measure_the_kl_from_the_start(tmp_path: Path, incoming: bool):
    peft_config = lora(init_lora_weights=False) if incoming else lora()

    def adapted() -> PeftModel:
        torch.manual_seed(3)
        return cast(PeftModel, get_peft_model(toy_model(), peft_config))

    def ppo(model: Any, ref_model: Any, **changes: Any) -> PPOTrainer:
        common = {"max_new_tokens": 3, "num_ppo_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.5}
        return PPOTrainer(
            model,
            ref_model,
            args=PPOConfig(**options(tmp_path, **common, **changes)),
            train_dataset=varied_prompts(8),
            eval_dataset=varied_prompts(5),
            processing_class=toy_tokenizer(),
            reward=toy_reward(3),
            judge=length,
            peft_config=None if incoming or ref_model is not None else peft_config,
        )

    evaluations = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 6}
    trainer = ppo(adapted() if incoming else toy_model(), None, **SYNC, **evaluations)
    before = {name: weight.detach().clone() for name, weight in trainer.model.model.named_parameters()}
    trainer.train()
    after = {name: weight.detach() for name, weight in trainer.model.model.named_parameters() if ".default." in name}
    start = with_weights(adapted(), {name: before[name] for name in after})
    fixed = ppo(with_weights(adapted(), after).requires_grad_(True), start)
    metrics = fixed.evaluate()
    rows = trainer.eval_rows
    assert rows["objective/kl_from_start"] == pytest.approx(fixed.eval_rows["objective/kl"], abs=1e-4)
    assert abs(rows["objective/kl"] - rows["objective/kl_from_start"]).max() > 1e-2
    logged = next(log for log in trainer.state.log_history if "eval_reward" in log)
    assert logged["eval_objective/kl_from_start"] == pytest.approx(metrics["eval_objective/kl"], abs=1e-4)
    assert "eval_objective/kl_from_start" not in metrics
    watch = trainer.over_optimization
    assert watch is not None and watch.points[-1]["kl"] == pytest.approx(list(rows["objective/kl_from_start"]))


def test_a_judge_needs_the_kl_from_the_start(tmp_path: Path):
    with pytest.raises(UserError, match=r"A judge watches .* along the KL from the start, which isn't kept in full"):
        PPOTrainer(
            toy_model(),
            args=PPOConfig(**options(tmp_path, sync_ref_model=True)),
            train_dataset=varied_prompts(2),
            eval_dataset=varied_prompts(2),
            processing_class=toy_tokenizer(),
            reward=toy_reward(3),
            judge=length,
        )


def test_a_win_rate_is_over_the_start_of_an_adapter(tmp_path: Path):
    def online(model: Any, ref_model: Any, **changes: Any) -> OnlineDPOTrainer:
        common = {"max_new_tokens": 3, "num_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.5}
        return OnlineDPOTrainer(
            model,
            ref_model,
            args=OnlineDPOConfig(**options(tmp_path, **common, **changes)),
            train_dataset=varied_prompts(8),
            eval_dataset=varied_prompts(12),
            processing_class=toy_tokenizer(),
            judge=FunctionJudge(lambda prompt, first, second: 1 / (1 + 2.0 ** (len(second) - len(first)))),
            peft_config=None if ref_model is not None else lora(),
        )

    trainer = online(toy_model(), None, **{**SYNC, "ref_model_mixup_alpha": 1.0}, max_steps=5)
    trainer.train()
    won = trainer.evaluate()["eval_win_rate"]
    after = {name: weight.detach() for name, weight in trainer.model.model.named_parameters() if ".default." in name}
    policy = with_weights(cast(Any, get_peft_model(toy_model(), lora())), after).requires_grad_(True)
    assert won == pytest.approx(online(policy, toy_model()).evaluate()["eval_win_rate"], abs=1e-6)
    assert won != pytest.approx(0.5, abs=1e-3)
