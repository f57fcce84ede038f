"""Families of decoders through the library: numbers are each model's own, or one sentence says what fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor

from hf_align import (
    DPOConfig,
    DPOTrainer,
    PPOConfig,
    PPOTrainer,
    RewardConfig,
    RewardTrainer,
    load_policy,
    load_reward_model,
)
from hf_align.errors import UserError
from hf_align.layout.branches import Branches, Document, build_branches
from hf_align.layout.leaks import leaks
from hf_align.models.decoders import check_causal, check_decoder_config
from hf_align.models.merging import merge_adapter
from hf_align.models.policy import PolicyModel
from hf_align.models.randomness import disable_dropout
from hf_align.rollouts import sample_responses
from tests.families import FAMILIES, Family
from tests.tiny import tiny_tokenizer
from tests.trainers.pairs import options

GENERATOR = torch.Generator().manual_seed(0)
EOS = 258
ROWS = Dataset.from_list(
    [{"prompt": f"Say {n} things:", "chosen": f" red {n}", "rejected": f" a longer one {n}"} for n in range(4)]
)
TEXTS = ["Say 1 things: red 1", "Something else and longer"]


def tokens(count: int) -> list[int]:
    return torch.randint(0, 256, (count,), generator=GENERATOR).tolist()


DOCUMENTS: list[Document] = [(tokens(10), [tokens(5), tokens(8)]), (tokens(7), [tokens(6), tokens(3)])]


@torch.no_grad()
def own_logps(model: Any, documents: list[Document]) -> Tensor:
    """Log-probs of the responses from the model's own logits, each text alone, as transformers computes them."""
    found = []
    for prompt, responses in documents:
        for response in responses:
            ids = torch.tensor([[*prompt, *response]])
            logps = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            found.append(logps[len(prompt) - 1 :])
    return torch.cat(found)


@torch.no_grad()
def likeliest(model: Any, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + count and (len(ids) == len(prompt) or ids[-1] != EOS):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", FAMILIES)
def test_log_probs_and_samples_are_the_models_own_and_repeat_to_the_bit(name: str):
    family = FAMILIES[name]
    model: Any = family.make()
    policy = PolicyModel(model)
    branches = build_branches(DOCUMENTS, pad_token_id=0)
    plain = branches.as_separate()
    batches = [plain, branches] if family.layout == "branches" else [plain]
    check_decoder_config(model.config, name)
    check_causal(policy, model.get_output_embeddings(), name)
    expected = own_logps(model, DOCUMENTS)
    assert expected.std() > 0.05
    for batch in batches:
        with torch.no_grad():
            torch.testing.assert_close(policy(batch), expected, atol=1e-4, rtol=0)
    if family.layout == "rows":
        with torch.no_grad():
            assert differs(policy, branches, expected), "branches would do"
    prompts = [list(prompt) for prompt, _ in DOCUMENTS]
    samples = sample_responses(policy, tiny_tokenizer(), prompts, num_samples=2, max_new_tokens=6, temperature=0.0)
    wanted = [likeliest(model, prompt, 6) for prompt in prompts for _ in range(2)]
    assert [sample.token_ids for sample in samples] == wanted
    disable_dropout(policy)
    policy.train()
    for batch in batches:
        first, second = policy(batch), policy(batch)
        assert torch.equal(first, second), "a training pass draws random numbers"
        torch.testing.assert_close(first.detach(), expected, atol=1e-4, rtol=0)


def differs(policy: PolicyModel, branches: Branches, expected: Tensor) -> bool:
    """Whether a model can't take the branch layout: it fails, responses see each other, or positions are others."""
    try:
        values = policy(branches)
        return leaks(policy, branches, values, torch.tensor(0.0)) or bool((values - expected).abs().mean() > 1e-3)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return True


# ---- a row of the table: the trainers ----


class Row:
    """What is done with a family, column by column; the folders of earlier columns are used by later ones."""

    def __init__(self, family: Family, folder: Path):
        self.base, self.folder = str(folder / "base"), folder
        family.make().save_pretrained(self.base)
        tiny_tokenizer().save_pretrained(self.base)
        self.lora = LoraConfig(r=2, target_modules="all-linear")
        self.own = own_logps(load_policy(self.base), self.documents())

    def documents(self) -> list[Document]:
        def ids(text: str) -> list[int]:
            return tiny_tokenizer()(text)["input_ids"]

        return [(ids(row["prompt"]), [[*ids(row[side]), EOS] for side in ("chosen", "rejected")]) for row in ROWS]  # type: ignore[index]

    def options(self, name: str, **changes: Any) -> dict[str, Any]:
        return options(self.folder / name, per_device_train_batch_size=4, learning_rate=0.05, **changes)

    def dpo(self) -> None:
        """The first log-probs are the model's own; what is saved computes what was trained."""
        trainer = DPOTrainer(
            self.base, args=DPOConfig(**self.options("dpo")), train_dataset=ROWS, peft_config=self.lora
        )
        trainer.train()
        trainer.save_model()
        log = trainer.state.log_history[0]
        lengths = [len(response) for _, responses in self.documents() for response in responses]
        sums = torch.stack([part.sum() for part in self.own.split(lengths)]).view(-1, 2).mean(0)
        found = torch.tensor([log["logps/chosen"], log["logps/rejected"]])
        torch.testing.assert_close(found, sums, atol=1e-3, rtol=1e-5)
        assert log["loss"] == pytest.approx(0.693147, abs=1e-4)
        self.trained = logits_of(trainer.model.model)
        torch.testing.assert_close(logits_of(load_policy(self.folder / "dpo")), self.trained, atol=1e-4, rtol=0)

    def full(self) -> None:
        """All weights are trained, and what is saved loads in plain transformers' way."""
        trainer = DPOTrainer(self.base, args=DPOConfig(**self.options("full")), train_dataset=ROWS)
        trainer.train()
        trainer.save_model()
        trained = logits_of(trainer.model.model)
        torch.testing.assert_close(logits_of(load_policy(self.folder / "full")), trained, atol=1e-4, rtol=0)
        assert not torch.allclose(trained, logits_of(load_policy(self.base)), atol=1e-3), "nothing was trained"

    def merge(self) -> None:
        """A merged policy computes what its adapter does on the base."""
        merge_adapter(self.folder / "dpo", self.folder / "merged")
        torch.testing.assert_close(logits_of(load_policy(self.folder / "merged")), self.trained, atol=1e-3, rtol=1e-4)

    def reward(self) -> None:
        """Scores are those of each text alone, survive saving and, unless it is refused, merging."""
        args = RewardConfig(**self.options("reward"))
        trainer = RewardTrainer(self.base, args=args, train_dataset=ROWS, peft_config=self.lora)
        trainer.train()
        trainer.save_model()
        prompts, responses = [row["prompt"] for row in ROWS] * 2, [*ROWS["chosen"], *ROWS["rejected"]]  # type: ignore[index]
        scores = trainer.model.score(prompts, responses)
        model = cast(Any, trainer.model.eval()).model
        alone = []
        with torch.no_grad():
            for prompt, response in zip(prompts, responses, strict=True):
                ids = [*tiny_tokenizer()(prompt + response)["input_ids"], EOS]
                alone.append(model(input_ids=torch.tensor([ids])).logits.item())
        assert scores == pytest.approx(alone, abs=1e-4)
        assert load_reward_model(self.folder / "reward").score(prompts, responses) == pytest.approx(scores, abs=1e-4)

    def ppo(self) -> None:
        """The rollout's log-probs are the model's own, its scores the reward model's, the first ratio is 1."""
        args = PPOConfig(**self.options("ppo", max_new_tokens=4, num_mini_batches=1, num_ppo_epochs=1))
        trainer = PPOTrainer(
            self.base,
            args=args,
            train_dataset=ROWS.select_columns("prompt"),
            peft_config=self.lora,
            reward=str(self.folder / "reward"),
        )
        trainer.train()
        trainer.save_model()
        rollout: Any = trainer.rollout
        documents: list[Document] = [(p, [r]) for p, r in zip(rollout.prompt_ids, rollout.response_ids, strict=True)]
        found = rollout.tokens["old_logps"][rollout.mask]
        torch.testing.assert_close(found, own_logps(load_policy(self.base), documents), atol=1e-4, rtol=0)
        reward = load_reward_model(self.folder / "reward")
        scores = reward.score_ids(rollout.prompt_ids, rollout.response_ids)
        assert rollout.scores.tolist() == pytest.approx(scores, abs=1e-4)
        assert trainer.state.log_history[0]["val/ratio"] == pytest.approx(1, abs=1e-4)

    def quantized(self) -> None:
        """In 8 bits the numbers are those of the quantised model's own logits, and an adapter trains."""
        model: Any = load_policy(self.base, quantization="8bit", lora=self.lora)
        plain = build_branches(self.documents(), pad_token_id=0).as_separate()
        with torch.no_grad():
            torch.testing.assert_close(PolicyModel(model)(plain), own_logps(model, self.documents()), atol=1e-3, rtol=0)
        args = DPOConfig(**self.options("8bit"))
        DPOTrainer(model, args=args, train_dataset=ROWS, processing_class=tiny_tokenizer()).train()


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    model.eval()
    return torch.cat([model(input_ids=tiny_tokenizer()(t, return_tensors="pt")["input_ids"]).logits[0] for t in TEXTS])


COLUMNS: dict[str, Callable[[Row], None]] = {
    "DPO": Row.dpo,
    "full": Row.full,
    "merge": Row.merge,
    "reward": Row.reward,
    "PPO": Row.ppo,
    "8-bit": Row.quantized,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_saves_reloads_and_merges_or_says_why_not(name: str, tmp_path: Path):
    row = Row(FAMILIES[name], tmp_path)
    for column, run in COLUMNS.items():
        sentence = FAMILIES[name].refused.get(column)
        if sentence is None:
            run(row)
        else:
            with pytest.raises(UserError, match=sentence):
                run(row)
