"""Reward models: pooling, heads, and scores that survive saving, merging and plain transformers or peft."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_align.errors import UserError
from hf_align.layout.branches import build_branches
from hf_align.models.heads import pool
from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.sources import load_tokenizer

PROMPTS = ["Write one sentence about a movie.", "Write a tweet.", "Review this camera."]
RESPONSES = ["A dull, endless film.", "So happy today!", "It takes sharp pictures, but the battery is dead in an hour."]
DOCUMENTS = [([1, 2, 3], [[4, 5], [6, 7, 8]]), ([9], [[10], [11, 12]])]


def texts(tokenizer, prompts=PROMPTS, responses=RESPONSES) -> list[str]:
    """Input for plain transformers: the chat template up to the end of the turn."""
    rendered = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": p}, {"role": "assistant", "content": r}], tokenize=False
        )
        for p, r in zip(prompts, responses, strict=True)
    ]
    return [text.rstrip("\n") for text in rendered]


def messages(prompts=PROMPTS) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": prompt}] for prompt in prompts]


@pytest.fixture(scope="module")
def trained(base_dir: str) -> RewardModel:
    """The real model with a changed adapter and head."""
    torch.manual_seed(0)
    model = load_reward_model(base_dir, lora=True)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def test_only_adapter_and_head_are_trained(trained: RewardModel):
    names = [name for name, parameter in trained.named_parameters() if parameter.requires_grad]
    assert any("score" in name for name in names)
    assert all("lora_" in name or "score" in name for name in names)
    assert all(p.dtype == torch.float32 for p in trained.parameters() if p.requires_grad)


def test_scores_survive_merging_and_plain_transformers(trained: RewardModel, tmp_path: Path):
    scores = trained.score(messages(), RESPONSES)
    assert max(scores) - min(scores) > 0.01
    trained.merge_and_save(tmp_path / "merged")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    for side in ("left", "right"):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged", padding_side=side)
        assert tokenizer.pad_token_id != tokenizer.eos_token_id
        with torch.no_grad():
            again = plain(**tokenizer(texts(tokenizer), return_tensors="pt", padding=True)).logits[:, 0].tolist()
        assert again == pytest.approx(scores, abs=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    piped = pipeline("text-classification", str(tmp_path / "merged"))(texts(tokenizer))
    assert [row["score"] for row in piped] == pytest.approx(scores, abs=1e-4), "the raw score, not its sigmoid"
    assert load_reward_model(tmp_path / "merged").score(messages(), RESPONSES) == pytest.approx(scores, abs=1e-4)


def test_the_adapter_loads_through_peft(trained: RewardModel, tmp_path: Path):
    scores = trained.score(messages(), RESPONSES)
    trained.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists(), "AutoModel would take the folder for a full model"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    plain = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).eval()
    with torch.no_grad():
        again = plain(**tokenizer(texts(tokenizer), return_tensors="pt", padding=True)).logits[:, 0].tolist()
    assert again == pytest.approx(scores, abs=1e-4)
    assert load_reward_model(tmp_path).score(messages(), RESPONSES) == pytest.approx(scores, abs=1e-4)


def test_branches_give_the_scores_of_separate_sequences(trained: RewardModel, base_dir: str):
    tokenizer = load_tokenizer(base_dir)
    responses = [[tokenizer(f"{RESPONSES[n % 3]} {n}")["input_ids"] for n in range(count)] for count in (1, 2, 3, 7)]
    documents = list(zip([tokenizer(p)["input_ids"] for p in [*PROMPTS, "Hi"]], responses, strict=True))
    branches = build_branches(documents, pad_token_id=0)
    results = []
    for layout in (branches.as_separate(), branches, build_branches(documents, pad_token_id=0, row_tokens=128)):
        trained.zero_grad()
        rewards = trained(layout)
        (rewards * torch.linspace(-1, 1, len(rewards))).sum().backward()
        gradients = {n: p.grad.clone() for n, p in trained.named_parameters() if p.grad is not None}
        results.append((rewards.detach(), gradients))
    trained.zero_grad()
    (expected, gradients), *others = results
    assert expected.std() > 0.01
    for rewards, actual in others:
        torch.testing.assert_close(rewards, expected, atol=1e-4, rtol=0)
        for name, gradient in gradients.items():
            assert (actual[name] - gradient).norm() <= 1e-3 * gradient.norm(), name


def test_a_cut_response_is_scored_by_its_own_last_token(trained: RewardModel):
    tokenizer = trained.tokenizer
    prompts: list[Any] = [messages()[0], PROMPTS[1]]  # a conversation and text: their ends are different tokens
    scores = trained.score(prompts, RESPONSES[:2], finished=[False, False])
    for prompt, response, score in zip(prompts, RESPONSES, scores, strict=False):
        chat = isinstance(prompt, list)
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True) if chat else prompt
        ids, behind = (tokenizer(str(part), add_special_tokens=False)["input_ids"] for part in (text, response))
        with torch.no_grad():
            alone = trained(build_branches([(ids, [behind])], pad_token_id=0).as_separate())
        assert score == pytest.approx(alone.item(), abs=1e-4)
    assert abs(scores[0] - trained.score(prompts[:1], RESPONSES[:1])[0]) > 1e-3, "which ends with the turn"
    mixed = trained.score(prompts, RESPONSES[:2], finished=[False, True])
    assert mixed == pytest.approx([scores[0], trained.score(prompts[1:], RESPONSES[1:2])[0]], abs=1e-4)
    assert trained.score(["Hi"], [""], finished=[False]) == trained.score(["Hi"], [""]), "there is nothing but the end"
    with pytest.raises(UserError, match="1 responses, and finished has 2 entries"):
        trained.score(["Hi"], ["Ho"], finished=[True, True])


def test_pooling_counts_real_tokens_only():
    branches = build_branches(DOCUMENTS, pad_token_id=0)
    hidden = branches.input_ids[..., None].float()  # a token's state is its id
    expected = {"last": [5, 8, 10, 12], "first": [1, 1, 9, 9], "max": [5, 8, 10, 12], "mean": [3, 4.5, 9.5, 32 / 3]}
    for pooling, values in expected.items():
        assert pool(hidden, branches, pooling)[:, 0].tolist() == pytest.approx(values)
        plain = branches.as_separate()
        assert pool(plain.input_ids[..., None].float(), plain, pooling)[:, 0].tolist() == pytest.approx(values)


@pytest.mark.parametrize("lora", [True, None])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_other_heads_round_trip(tiny_model_dir: str, tmp_path: Path, lora: bool | None, pooling: str):
    config = RewardModelConfig(pooling=pooling, head="mlp")  # type: ignore[arg-type]
    model = RewardModel.from_backbone(tiny_model_dir, config, lora=lora)
    scores = model.score(PROMPTS, RESPONSES)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "reward_config.json").read_text()) == {"pooling": pooling, "head": "mlp"}
    again = load_reward_model(tmp_path)
    assert again.reward_config == config
    assert again.score(PROMPTS, RESPONSES) == pytest.approx(scores, abs=1e-5)
    model.merge_and_save(tmp_path / "merged")
    assert load_reward_model(tmp_path / "merged").score(PROMPTS, RESPONSES) == pytest.approx(scores, abs=1e-5)


def test_the_new_head_starts_small_and_says_so(tiny_model_dir: str, caplog: pytest.LogCaptureFixture):
    model = RewardModel.from_backbone(tiny_model_dir)
    assert "no reward head" not in caplog.text
    weight = cast(Any, model.head).weight
    assert weight.shape == (1, 32) and 0.5 < weight.std() * 33**0.5 < 1.5


def test_scoring_is_the_same_in_any_company(tiny_model_dir: str):
    model = RewardModel.from_backbone(tiny_model_dir)
    together = model.score(messages(), RESPONSES)
    alone = [model.score([p], [r])[0] for p, r in zip(messages(), RESPONSES, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert model.score(PROMPTS, RESPONSES) == pytest.approx(model.score(PROMPTS, RESPONSES))


@pytest.mark.parametrize("count", [3, 11])
def test_a_prompt_that_responses_share_is_encoded_once(tiny_model_dir: str, count: int):
    model = RewardModel.from_backbone(tiny_model_dir)
    prompts = [prompt for prompt in PROMPTS[:2] for _ in range(count)]
    responses = [f"{RESPONSES[0]} {'again ' * (number % 5)}{number}" for number in range(2 * count)]
    alone = [model.score([p], [r])[0] for p, r in zip(prompts, responses, strict=True)]
    tokens: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: tokens.append(int((inputs[0].doc_ids >= 0).sum())))
    assert model.score(prompts, responses) == pytest.approx(alone, abs=1e-5)
    assert model.shares_prompts
    tokens.clear()
    model.score(prompts, responses)
    shared = sum(tokens)
    tokens.clear()
    model.shares_prompts = False  # as for a model that doesn't honour branches
    assert model.score(prompts, responses) == pytest.approx(alone, abs=1e-5)
    assert shared < 0.8 * sum(tokens)


def test_bad_arguments_are_named(tiny_model_dir: str):
    with pytest.raises(UserError, match="pooling"):
        RewardModelConfig(pooling="median")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="2 prompts and 1 responses"):
        RewardModel.from_backbone(tiny_model_dir).score(["a", "b"], ["c"])
    model = RewardModel.from_backbone(tiny_model_dir)
    with pytest.raises(UserError, match=r"1 row has a response that is neither text nor a list of messages \(row 1\)"):
        model.score(["a", "b"], ["c", None])
    with pytest.raises(UserError, match="score takes a list of prompts and a list of responses, not a single text"):
        model.score("a", "b")
    with pytest.raises(UserError, match="score got 1 prompts, and rows has 2 entries"):
        model.score(["a"], ["b"], rows=[{}, {}])
    with pytest.raises(UserError, match="has a head called score, and a LlamaForCausalLM has none; give a language"):
        RewardModel(load_policy(tiny_model_dir), load_tokenizer(tiny_model_dir))
    two = AutoModelForSequenceClassification.from_pretrained(tiny_model_dir, num_labels=2)
    with pytest.raises(UserError, match="num_labels"):
        RewardModel(two, load_tokenizer(tiny_model_dir))


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Like a full disk: larger writes raise an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_merged_folder_is_whole_or_absent(tiny_model_dir: str, tmp_path: Path):
    model = RewardModel.from_backbone(tiny_model_dir)
    with files_no_larger_than(20_000), pytest.raises(Exception, match=r"File too large|os error 27"):
        model.merge_and_save(tmp_path / "merged")  # the config has room, the weights have none
    assert list(tmp_path.iterdir()) == []


def test_saved_weights_are_float32(trained: RewardModel, tmp_path: Path):
    trained.save_pretrained(tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "adapter_model.safetensors").values()} == {torch.float32}


def test_a_policy_is_no_reward_model(tiny_model_dir: str):
    with pytest.raises(UserError, match="a head called score"):
        RewardModel(load_policy(tiny_model_dir), load_tokenizer(tiny_model_dir))


def test_merging_never_replaces_a_folder_that_holds_no_model(tiny_model_dir: str, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a model folder"):
        RewardModel.from_backbone(tiny_model_dir).merge_and_save(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
