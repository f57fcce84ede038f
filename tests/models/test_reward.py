"""Reward models: pooling, heads, and scores that survive saving, merging and plain transformers or peft."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_align.errors import UserError
from hf_align.full_disk import DiskFull
from hf_align.layout.branches import Branches, build_branches
from hf_align.models.heads import new_reward_head
from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.sources import load_tokenizer
from tests.file_limit import files_no_larger_than

PROMPTS = ["Write one sentence about a movie.", "Write a tweet.", "Review this camera."]
RESPONSES = ["A dull, endless film.", "So happy today!", "It takes sharp pictures, but the battery is dead in an hour."]
DOCUMENTS = [([1, 2, 3], [[4, 5], [6, 7, 8]]), ([9], [[10], [11, 12], [13, 14, 15, 16, 17]])]


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


@pytest.fixture(scope="module", params=["cut_base_dir", pytest.param("base_dir", marks=pytest.mark.slow)])
def trained(request: pytest.FixtureRequest) -> RewardModel:
    """The real model with a changed adapter and head."""
    torch.manual_seed(0)
    model = load_reward_model(request.getfixturevalue(request.param), lora=True)
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


def left_padded(branches: Branches) -> Branches:
    """Plain rows with their padding in front."""
    plain = branches.as_separate()
    padding = (plain.doc_ids < 0).sum(1)
    columns = (torch.arange(plain.doc_ids.shape[1])[None] - padding[:, None]) % plain.doc_ids.shape[1]
    names = ("input_ids", "position_ids", "doc_ids", "branch_ids")
    moved = {name: getattr(plain, name).gather(1, columns) for name in names}
    return replace(plain, **moved, last=plain.last + padding, predictors=plain.predictors + padding[plain.token_branch])


def every_config() -> Iterator[RewardModelConfig]:
    """All poolings, heads and further outputs."""
    for head in ("linear", "mlp", "attention"):
        for pooling in ("last",) if head == "attention" else ("last", "mean", "max", "first"):
            for tasks in ({}, {"helpful": "regression", "tone": 3, "safe": "binary"}):
                yield RewardModelConfig(pooling, head, tasks, projection=bool(tasks))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny_backbone(tiny_model_dir: str) -> RewardModel:
    return RewardModel.from_backbone(tiny_model_dir)


def with_head(model: RewardModel, config: RewardModelConfig) -> RewardModel:
    torch.manual_seed(0)
    model.model.score = new_reward_head(config, 32, torch.device("cpu"))
    model.reward_config = config
    return model.eval()


@torch.no_grad()
def outputs_by_hand(model: RewardModel, prompt: list[int], response: list[int]) -> torch.Tensor:
    """All outputs for one `prompt + response`, step by step from the backbone's states."""
    config, head = model.reward_config, cast(Any, model.head)
    states = cast(Any, model.model).model(torch.tensor([prompt + response])).last_hidden_state[0]
    if config.head == "attention":
        first, _, second = head.attention
        weights = (second.weight @ (first.weight @ states[len(prompt) :].T + first.bias[:, None]).tanh())[0].softmax(0)
        pooled = weights @ states[len(prompt) :]
    else:
        pooled = {"last": states[-1], "first": states[0], "mean": states.mean(0), "max": states.amax(0)}[config.pooling]
    part = getattr(head, "reward", head)
    if config.head == "mlp":
        score = part[3].weight @ (part[0].weight @ pooled + part[0].bias).relu()
    else:
        score = part.weight @ pooled
    if not config.tasks:
        return score[0]
    embedding = head.projection[2](head.projection[0](pooled).relu())
    return torch.cat([score, head.tasks.weight @ pooled + head.tasks.bias, embedding])


def test_outputs_are_those_of_each_row_alone_in_every_layout(tiny_backbone: RewardModel):
    branches = build_branches(DOCUMENTS, pad_token_id=0)
    packed = build_branches(DOCUMENTS, pad_token_id=0, row_tokens=32)
    assert packed.input_ids.shape[0] == 1
    layouts = [branches, packed, branches.as_separate(), left_padded(branches)]
    for config in every_config():
        model = with_head(tiny_backbone, config)
        expected = torch.stack([outputs_by_hand(model, p, r) for p, responses in DOCUMENTS for r in responses])
        assert expected.std(0).max() > 0.1 or config.pooling == "first"
        for layout in layouts:
            with torch.no_grad():
                outputs = model(layout)
            torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=0, msg=f"{config}: {layout.input_ids.shape}")


def test_return_all_gives_the_scores_of_the_response_cut_after_each_token(tiny_backbone: RewardModel):
    pairs = [(prompt, response) for prompt, responses in DOCUMENTS for response in responses]
    for config in every_config():
        model = with_head(tiny_backbone, config)
        every = model.score_ids(*zip(*pairs, strict=True), return_all=True)
        for (prompt, response), rewards in zip(pairs, every, strict=True):
            cuts = [response[: count + 1] for count in range(len(response))]
            assert rewards == pytest.approx(model.score_ids([prompt] * len(cuts), cuts), abs=1e-5), config
    model = with_head(tiny_backbone, RewardModelConfig())
    every = model.score(messages(), RESPONSES, return_all=True)
    assert [rewards[-1] for rewards in every] == pytest.approx(model.score(messages(), RESPONSES), abs=1e-5)
    assert len(every[0]) == len(RESPONSES[0]) + 1, "its bytes and the end of the turn"
    assert model.score([], [], return_all=True) == []


def test_split_names_the_outputs_and_score_tasks_gives_probabilities(tiny_backbone: RewardModel):
    model = with_head(tiny_backbone, RewardModelConfig(tasks={"b": "binary", "c": 3, "r": "regression"}))
    outputs = torch.arange(12.0).view(2, 6)
    named = model.split(outputs)
    assert named.rewards.tolist() == [0, 6] and named.embeddings is None
    assert list(named.tasks) == ["b", "c", "r"]
    assert named.tasks["b"].tolist() == [1, 7] and named.tasks["r"].tolist() == [5, 11]
    assert named.tasks["c"].tolist() == [[2, 3, 4], [8, 9, 10]]
    projecting = with_head(tiny_backbone, RewardModelConfig(tasks={"r": "regression"}, projection=True))
    wide = torch.arange(130.0)[None]
    assert projecting.split(wide).embeddings.tolist() == [list(range(2, 130))]  # type: ignore[union-attr]
    plain = with_head(tiny_backbone, RewardModelConfig()).split(outputs[:, 0])
    assert plain.rewards.tolist() == [0, 6] and plain.tasks == {} and plain.embeddings is None

    model = with_head(tiny_backbone, RewardModelConfig(tasks={"b": "binary", "c": 3, "r": "regression"}))
    predicted = model.score_tasks(PROMPTS, RESPONSES)
    assert all(0 < probability < 1 for probability in predicted["b"])
    assert [sum(row) for row in predicted["c"]] == pytest.approx([1] * 3)
    alone = model.score_tasks(PROMPTS[1:2], RESPONSES[1:2])
    assert alone["r"][0] == pytest.approx(predicted["r"][1], abs=1e-5)
    assert model.score_tasks([], []) == {"b": [], "c": [], "r": []}
    with pytest.raises(UserError, match="has no tasks to predict"):
        with_head(tiny_backbone, RewardModelConfig()).score_tasks(PROMPTS, RESPONSES)


@pytest.mark.parametrize("quantization", [None, "8bit", "4bit"])
@pytest.mark.parametrize("head", ["mlp", "attention"])
def test_lora_trains_and_saves_every_part_of_the_head(
    tiny_model_dir: str, tmp_path: Path, head: str, quantization: Any
):
    config = RewardModelConfig(head=head, tasks={"tone": 3, "safe": "binary"}, projection=True)  # type: ignore[arg-type]
    model = RewardModel.from_backbone(tiny_model_dir, config, quantization=quantization, lora=True)
    branches = build_branches(DOCUMENTS, pad_token_id=0)
    model(branches).square().sum().backward()
    parts = {name.rpartition("default.")[2]: p for name, p in model.named_parameters() if "modules_to_save" in name}
    assert {name.partition(".")[0] for name in parts} == {"reward", "tasks", "projection"} | (
        {"attention"} if head == "attention" else set()
    )
    assert all(p.dtype == torch.float32 and p.grad is not None and p.grad.any() for p in parts.values())
    assert not any("lora_" in name for name in parts)
    model.save_pretrained(tmp_path)
    again = RewardModel.from_pretrained(tmp_path, quantization=quantization)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(branches), model.eval()(branches), atol=0, rtol=0)


@pytest.mark.parametrize("lora", [True, None])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_other_heads_round_trip(tiny_model_dir: str, tmp_path: Path, lora: bool | None, pooling: str):
    config = RewardModelConfig(pooling=pooling, head="mlp")  # type: ignore[arg-type]
    model = RewardModel.from_backbone(tiny_model_dir, config, lora=lora)
    scores = model.score(PROMPTS, RESPONSES)
    model.save_pretrained(tmp_path)
    settings = {"pooling": pooling, "head": "mlp", "tasks": {}, "projection": False, "length_penalty": 0.0}
    assert json.loads((tmp_path / "reward_config.json").read_text()) == settings
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


def test_pooling_a_token_that_sees_no_response_is_said(tiny_model_dir: str, caplog: pytest.LogCaptureFixture):
    model = RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(pooling="first"))
    assert "all responses to a prompt get one score" in caplog.text
    first, second = model.score(PROMPTS[:1] * 2, RESPONSES[:2])
    assert first == pytest.approx(second, abs=1e-6)


def test_bad_arguments_are_named(tiny_model_dir: str):
    with pytest.raises(UserError, match="pooling"):
        RewardModelConfig(pooling="median")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="head='attention' pools the response's tokens by itself; leave pooling out"):
        RewardModelConfig(pooling="mean", head="attention")
    for name in ("reward", "two words", "margin", 3):
        with pytest.raises(UserError, match=f"has the name {name!r}"):
            RewardModelConfig(tasks={name: "binary"})  # type: ignore[dict-item]
    for kind in (1, True, "classes", 2.0):
        with pytest.raises(UserError, match=r"tasks\['tone'\] is .* a number of classes from 2"):
            RewardModelConfig(tasks={"tone": kind})  # type: ignore[dict-item]
    with pytest.raises(UserError, match="a mapping of names"):
        RewardModelConfig(tasks=["safe"])  # type: ignore[arg-type]
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


def test_a_merged_folder_is_whole_or_absent(tiny_model_dir: str, tmp_path: Path):
    model = RewardModel.from_backbone(tiny_model_dir)
    with (
        files_no_larger_than(20_000),
        pytest.raises(DiskFull, match="it is larger than files may be"),
    ):
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
