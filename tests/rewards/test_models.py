"""Reward models as rewards: sampled token ids are scored if the tokenizers agree."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_align.layout.branches import build_branches
from hf_align.models.reward import RewardModel
from hf_align.rewards import Reward, as_reward
from hf_align.rollouts.engine import decode
from tests.tiny import save_tiny, tiny_tokenizer

CHAT = [{"role": "user", "content": "Hi"}]
END_OF_TEXT, END_OF_TURN = 256, 258


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    torch.manual_seed(0)
    return RewardModel.from_backbone(save_tiny(tmp_path_factory.mktemp("base")))


def ids_of(text: str) -> list[int]:
    return tiny_tokenizer()(text).input_ids


def alone(model: RewardModel, prompt: list[int], response: list[int]) -> float:
    with torch.no_grad():
        return model(build_branches([(prompt, [response])], pad_token_id=0).as_separate()).item()


def scored(reward: Reward, prompt: Any, response: list[int], finished: bool) -> float:
    """The score of one sampled response, passed as in PPO."""
    tokenizer = tiny_tokenizer()
    chat = isinstance(prompt, list)
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False) if chat else prompt
    written = decode(tokenizer, response, skip_special_tokens=True)
    ids: dict[str, Any] = {"prompt_ids": [ids_of(str(text))], "response_ids": [response]}
    return reward([prompt], [written], **ids, finished=[finished]).item()


def test_tokens_that_text_would_not_bring_back_are_scored_as_they_are(model: RewardModel):
    half = ids_of("é")[:1]  # the first byte of a character: as text it is U+FFFD, which takes three
    response = [*ids_of("good "), *half]
    written = decode(tiny_tokenizer(), response, skip_special_tokens=True)
    assert ids_of(written) != response
    reward = as_reward(model, tokenizer=tiny_tokenizer())
    score = scored(reward, "Hi", response, finished=False)
    assert score == pytest.approx(alone(model, ids_of("Hi"), response), abs=1e-5)
    as_text = model.score(["Hi"], [written], finished=[False])[0]
    assert abs(score - as_text) > 1e-3
    assert as_text == pytest.approx(alone(model, ids_of("Hi"), ids_of(written)), abs=1e-5)


@pytest.mark.parametrize("prompt", [CHAT, "Hi"])
@pytest.mark.parametrize("end", [[END_OF_TURN], [END_OF_TEXT], []], ids=["the model's", "another", "a stop string"])
def test_a_response_that_ended_is_scored_with_the_end_that_the_model_learnt(
    model: RewardModel, prompt: Any, end: list[int]
):
    reward = as_reward(model, tokenizer=tiny_tokenizer())
    score = scored(reward, prompt, [*ids_of("good"), *end], finished=True)
    assert score == pytest.approx(model.score([prompt], ["good"])[0], abs=1e-5)


def test_special_tokens_within_a_response_are_seen(model: RewardModel):
    response = [*ids_of("a"), END_OF_TEXT, *ids_of("b")]
    reward = as_reward(model, tokenizer=tiny_tokenizer())
    assert scored(reward, "Hi", response, finished=False) == pytest.approx(
        alone(model, ids_of("Hi"), response), abs=1e-5
    )


def test_another_chat_template_means_texts(model: RewardModel, caplog: pytest.LogCaptureFixture):
    policys = tiny_tokenizer()
    policys.chat_template = str(policys.chat_template).replace("<|im_end|>", "<|endoftext|>")
    with caplog.at_level(logging.INFO, logger="hf_align"):
        reward = as_reward(model, tokenizer=policys)
        as_reward(model, tokenizer=tiny_tokenizer())
    first, second = (record.getMessage() for record in caplog.records)
    assert "'RewardModel' scores texts" in first and "another chat template than the policy's" in first
    assert "'RewardModel' scores the sampled token ids" in second
    response = [*ids_of("good "), *ids_of("é")[:1]]
    written = decode(policys, response, skip_special_tokens=True)
    assert scored(reward, CHAT, response, finished=True) == pytest.approx(model.score([CHAT], [written])[0], abs=1e-5)


def test_ppo_scores_its_own_tokens(tmp_path: Path, model: RewardModel):
    from tests.trainers.ppo.test_engines import trainer_of

    changes = {"reward": model, "eval_dataset": None}
    trainer = trainer_of(tmp_path, changes, max_steps=1, num_ppo_epochs=1)
    trainer.train()
    rollout = trainer.rollout
    assert rollout is not None and not rollout.finished.all()
    for prompt, response, score in zip(rollout.prompt_ids, rollout.response_ids, rollout.scores.tolist(), strict=True):
        assert score == pytest.approx(alone(model, prompt, response), abs=1e-4)
