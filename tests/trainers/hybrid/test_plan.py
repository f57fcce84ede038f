"""What each stage starts from, and what is refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from peft import LoraConfig, get_peft_model

from hf_align.errors import UserError
from hf_align.trainers import DPOConfig, PPOConfig, Stage, Until
from hf_align.trainers.hybrid.config import HybridConfig
from hf_align.trainers.hybrid.plan import stage_args
from hf_align.trainers.hybrid.words import describe_hand_over
from hf_align.trainers.rollouts.schedule import seed_of
from tests.trainers.hybrid.run import demonstrations, hybrid, ppo, rows, save_toy, shared
from tests.trainers.toy import toy_model


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_toy(tmp_path_factory.mktemp("toy"))


def sft(**changes: Any) -> Stage:
    return Stage("sft", shared(), train_dataset=demonstrations(), **changes)


def starts(model: Any, out: Path, stages: list[Stage], **changes: Any) -> list[tuple[str, int, str | None, str]]:
    """Form, base, reference and way to the start of each stage."""
    planned = [each.hand_over for each in hybrid(model, out, stages, **changes).stages]
    return [(each.form, each.base, each.reference, each.start) for each in planned]


def test_by_default_dpo_ppo_and_ipo_share_an_adapter_and_the_start_as_reference(toy: str, tmp_path: Path):
    trainer = hybrid(toy, tmp_path, stages=None)
    assert [each.algorithm.name for each in trainer.stages] == ["dpo", "ppo", "ipo"]
    assert starts(toy, tmp_path, None) == [  # type: ignore[arg-type]
        ("adapter", 0, "start", "policy"),
        ("adapter", 0, "start", "off"),
        ("adapter", 0, "start", "off"),
    ]
    words = [describe_hand_over(each) for each in trainer.stages]
    assert [each["reference"] for each in words] == ["the start", *["the start (without the adapter)"] * 2]
    assert words[2]["trains"] == "the adapter of stage 2" and not list(tmp_path.iterdir())


def test_a_reference_that_moves_is_said_to(toy: str, tmp_path: Path):
    trainer = hybrid(toy, tmp_path, [Stage("dpo", shared(sync_ref_model=True), reference="previous")])
    words = describe_hand_over(trainer.stages[0])
    assert words["reference"] == "the start, following the policy (sync_ref_model)"


def test_what_sft_made_is_the_start_of_the_others(toy: str, tmp_path: Path):
    stages = [sft(), Stage("dpo", shared()), Stage("ppo", ppo()), Stage("ipo", shared(), reference="previous")]
    expected = [
        ("adapter", 0, None, "policy"),
        ("adapter", 0, "start", "policy"),
        ("adapter", 0, "start", "copy"),
        ("adapter", 0, "previous", "copy"),
    ]
    assert starts(toy, tmp_path, stages) == expected


def test_after_a_merge_the_start_is_another_model(toy: str, tmp_path: Path):
    stages = [
        sft(),
        Stage("dpo", shared(), adapter="new"),
        Stage("ppo", ppo()),
        Stage("ipo", shared(), adapter="merge"),
    ]
    expected = [
        ("adapter", 0, None, "policy"),
        ("adapter", 1, "start", "policy"),
        ("adapter", 1, "start", "off"),
        ("whole", 3, "previous", "model"),
    ]
    assert starts(toy, tmp_path, stages) == expected
    assert starts(toy, tmp_path, [Stage("dpo", shared()), Stage("ipo", shared())], peft_config=None)[1] == (
        *("whole", 0, "start"),
        "model",
    )


def test_a_start_with_an_adapter_is_kept_as_a_copy(tmp_path: Path):
    model = get_peft_model(toy_model(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    stages = [Stage("dpo", shared()), Stage("ipo", shared())]
    assert starts(model, tmp_path, stages, peft_config=None)[1] == ("adapter", 0, "start", "copy")


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (["reward"], {}, r"stage 1 \(reward\): reward trains a reward model, and a stage trains the policy"),
    ([], {}, "stages is empty; name an algorithm"),
    (["hybrid"], {}, r"stage 1 \(hybrid\): there is no such algorithm; there are sft, reward"),
    (["dpo", "ppoo"], {}, r"stage 2 \(ppoo\): there is no such algorithm; did you mean ppo\?"),
    ([Stage("dpo", adapter="new")], {}, r"stage 1 \(dpo\): adapter is 'new', and nothing was trained before"),
    (["dpo", Stage("ipo", adapter="merge")], {"peft_config": None}, "the stage before trained all weights"),
    (["dpo", Stage("ipo", adapter="new")], {"peft_config": None}, r"there is no peft_config \(lora\)"),
    (["dpo", Stage("ipo", adapter="new")], {"quantization_config": "4bit"}, "merging into quantised ones would round"),
    (["dpo", Stage("ipo", peft_config=LoraConfig())], {}, "peft_config is for adapter='new'"),
    (["dpo", Stage("dpo", {"loss_type": "simpo"}, reference="start")], {}, "dpo with this loss_type has none"),
    ([sft(reference="start")], {}, r"stage 1 \(sft\): reference is 'start', and sft has none"),
    (["dpo", Stage("ipo", reference="nowhere/")], {}, r"stage 2 \(ipo\): 'nowhere/' doesn't exist"),
    ([Stage("dpo", {"bta": 0.1})], {}, r"stage 1 \(dpo\): bta is no option; did you mean beta\?"),
    ([Stage("dpo", {"beta": -1.0})], {}, r"stage 1 \(dpo\): beta is -1.0; it must be above 0"),
    ([Stage("dpo", {"output_dir": "out"})], {}, "output_dir is the hybrid's"),
    ([Stage("dpo", {"enable_jit_checkpoint": True})], {}, "enable_jit_checkpoint would end the stage as if it were do"),
    ([Stage("dpo", PPOConfig("out"))], {}, "args is a PPOConfig; give a DPOConfig"),
    (["ppo"], {"reward": None}, r"stage 1 \(ppo\): reward is missing"),
    ([Stage("dpo", reward=len)], {}, "reward is given, and dpo takes none"),
    (["dpo"], {"train_dataset": None}, r"stage 1 \(dpo\): train_dataset is missing"),
    (["sft", "ppo"], {"train_dataset": [{"text": "a b"}]}, r"stage 2 \(ppo\): train_dataset"),
    (["ppo"], {"judge": "vader"}, "judge scores the responses to held-out prompts; give one eval_dataset"),
    ([Stage("dpo", until={"metric": "loss"})], {}, "eval_strategy is 'no'"),
    ([Stage("dpo", until={"patienc": 1})], {}, "until has no patienc; did you mean patience?"),
    ([Stage("dpo", until={"patience": 1})], {}, "until has neither metric nor kl"),
    ([sft(until={"kl": 1.0})], {}, "until.kl is the KL from the start, which sft can't measure here"),
    (["dpo"], {"peft_config": LoraConfig(init_lora_weights="pissa")}, "changes the base's weights, which all stages"),
    (["dpo"], {"peft_config": LoraConfig(bias="all")}, "trains the base's biases"),
    (
        ["dpo", Stage("ipo", adapter="new")],
        {"kl_budget": 1.0},
        r"stage 2 \(ipo\): the KL from the start is limited, and the start is neither",
    ),
    ([Stage("sft", {"merge": True}, train_dataset=demonstrations())], {}, "use adapter='new' in the next stage"),
]


@pytest.mark.parametrize(("stages", "changes", "message"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_can_not_be_is_refused(stages: Any, changes: dict[str, Any], message: str, toy: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        hybrid(toy, tmp_path, stages, **changes)


def test_several_processes_are_refused(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    PartialState()
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 2)
    with pytest.raises(UserError, match="a hybrid runs in one process; start it without `accelerate launch`"):
        hybrid(toy, tmp_path)


def test_a_loss_without_reference_has_none(toy: str, tmp_path: Path):
    simpo = Stage("dpo", shared(loss_type="simpo"))
    assert [each[2:] for each in starts(toy, tmp_path, [simpo, Stage("ipo", shared()), simpo])] == [
        (None, "policy"),
        ("start", "policy"),
        (None, "copy"),
    ]


def test_an_unknown_metric_is_refused(toy: str, tmp_path: Path):
    evaluated = shared(eval_strategy="steps", eval_steps=1)
    with pytest.raises(UserError, match=r"until\.metric is .reward., which evaluations don't return; use loss, "):
        hybrid(toy, tmp_path, [Stage("dpo", evaluated, eval_dataset=rows(), until=Until("reward"))])
    stage = Stage("ppo", ppo(eval_strategy="steps", eval_steps=1), eval_dataset=rows(), until=Until("eval_judge"))
    with pytest.raises(UserError, match="'judge' and there is no judge"):
        hybrid(toy, tmp_path, [stage])


def test_seeds_are_the_runs_and_drawn_from_it(toy: str, tmp_path: Path):
    config = HybridConfig(str(tmp_path), seed=7)
    assert stage_args({}, DPOConfig, 1, "dpo", config).seed == 7
    assert stage_args(None, DPOConfig, 2, "dpo", config).seed == seed_of(7, 2)
    assert stage_args({"seed": 5}, DPOConfig, 2, "dpo", config).seed == 5
    given = DPOConfig("elsewhere", beta=0.3)
    args = stage_args(given, DPOConfig, 2, "dpo", config)
    assert (args.seed, args.beta, args.output_dir) == (seed_of(7, 2), 0.3, str(tmp_path / "stage-2-dpo"))
    assert given.output_dir == "elsewhere" and stage_args(DPOConfig("x", seed=9), DPOConfig, 2, "dpo", config).seed == 9
