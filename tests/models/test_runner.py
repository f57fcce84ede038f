"""layout="auto" chooses by estimated work, logs its choice, and respects the user's attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from accelerate import Accelerator
from datasets import Dataset, concatenate_datasets
from transformers import GPTNeoConfig, GPTNeoForCausalLM, GPTNeoForSequenceClassification

from hf_align.errors import UserError
from hf_align.layout.branches import Branches, build_branches
from hf_align.layout.cost import Lengths
from hf_align.models.policy import PolicyModel
from hf_align.models.reward import RewardModel
from hf_align.models.runner import LayoutRunner, RunData
from hf_align.models.wrapper import attention_window
from hf_align.trainers.data import SAMPLE_ROWS, batches_of, longest_rows, spread_rows
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from tests.tiny import tiny_model, tiny_tokenizer
from tests.trainers.pairs import options, pairs
from tests.trainers.ppo.test_trainer import ppo
from tests.trainers.test_base import same_weights


def rows(prompt: int, response: int, count: int = 4) -> Dataset:
    return Dataset.from_list(
        [{"prompt": "p" * prompt, "chosen": "a" * response, "rejected": "b" * response} for _ in range(count)]
    )


def dpo(out: Path, data: Dataset, implementation: str = "sdpa", **changes: Any) -> DPOTrainer:
    model = tiny_model(attn_implementation=implementation, max_position_embeddings=4096)
    config = DPOConfig(**options(out, **changes))
    return DPOTrainer(model, args=config, train_dataset=data, processing_class=tiny_tokenizer())


def test_prompts_worth_sharing_are_shared(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    trainer = dpo(tmp_path, pairs(4))
    assert trainer.runner.layout_choice is None
    with caplog.at_level("INFO", logger="hf_align"):
        trainer.train()
    assert trainer.runner.layout_choice is not None and trainer.runner.layout_choice.layout == "branch"
    assert not trainer.runner.separate
    lines = [record.message for record in caplog.records if "layout='auto'" in record.message]
    assert len(lines) == 1 and lines[0].startswith("layout='auto' uses 'branch'")
    assert "branches would take" in lines[0] and "tokens instead of" in lines[0]


def test_responses_without_a_prompt_worth_sharing_get_rows_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    # Eager attention computes all pairs of a row; the tiny model's layers are cheap beside them.
    trainer = dpo(tmp_path, rows(4, 400), "eager", max_length=None)
    with caplog.at_level("WARNING", logger="hf_align"):
        trainer.train()
    assert trainer.runner.layout_choice is not None and trainer.runner.layout_choice.layout == "separate"
    assert trainer.runner.separate
    lines = [record.message for record in caplog.records if "layout='auto'" in record.message]
    assert len(lines) == 1 and "uses 'separate', one row per prompt + response: branches would take 1" in lines[0]
    by_hand = dpo(tmp_path, rows(4, 400), "eager", max_length=None, layout="separate")
    by_hand.train()
    same_weights(trainer.model, by_hand.model, atol=0, rtol=0)
    assert by_hand.runner.layout_choice is None, "the user chose"


class Stub(PolicyModel):
    """A policy that only records the layout of batches."""

    def forward(self, branches: Branches, **options: Any) -> Any:  # type: ignore[override]
        return torch.full((len(branches.targets),), float(branches.separate))


def test_attention_without_branch_masks_is_honoured(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    model = Stub(tiny_model())
    # As after loading with flash attention, which this machine can't run.
    cast(Any, model).config._attn_implementation_internal = "flash_attention_2"
    args = DPOConfig(**options(tmp_path))
    data = RunData(lengths=lambda: [], longest=lambda: [], tokens=lambda: 0)
    runner = LayoutRunner(args, Accelerator(), data, lambda: [model], sharded=False)
    batch = build_branches([([1, 2, 3], [[4, 5], [6]])], pad_token_id=0)
    with caplog.at_level("WARNING", logger="hf_align"):
        output, laid_out = runner.run(model, batch)
    assert runner.separate and laid_out.separate and output.tolist() == [1, 1, 1]
    assert "uses 'separate'" in caplog.text and "'flash_attention_2' takes no branch mask" in caplog.text


def test_the_choice_depends_on_the_data_not_on_the_first_batch(tmp_path: Path):
    data = concatenate_datasets([rows(400, 4, 1), rows(4, 400, 7)])
    choices = []
    for seed in (0, 1):
        trainer = dpo(tmp_path, data, "eager", max_length=None, seed=seed, per_device_train_batch_size=1)
        trainer.train()
        choices.append(trainer.runner.layout_choice)
    assert choices[0] == choices[1]


def test_ppo_counts_responses_as_long_as_they_may_be(tmp_path: Path):
    trainer = ppo(tmp_path, num_samples=2, max_new_tokens=3)
    # Eight responses a batch: four prompts of one to four words with two responses each.
    sample = trainer.sample_lengths()
    assert sample[0] == [(length, [3, 3]) for length in (1, 2, 3, 4)]
    assert sum(map(len, sample)) == 12
    trainer.train()
    assert trainer.runner.layout_choice is not None


def test_the_sample_is_spread_over_the_data():
    assert list(spread_rows(3)) == [0, 1, 2]
    spread = spread_rows(10 * SAMPLE_ROWS + 1)
    assert len(spread) <= SAMPLE_ROWS and spread[-1] > 9 * SAMPLE_ROWS
    assert batches_of([(1, [2])] * 5, 2) == [[(1, [2])] * 2, [(1, [2])] * 2, [(1, [2])]]


def test_the_longest_rows_are_found_wherever_they_stand():
    sizes = [(1, [1, 9]), (5, [1, 1, 1]), (2, [7]), (3, [2, 2]), (9, [8])]
    data = Dataset.from_list([{"prompt_ids": [1] * p, "response_ids": [[2] * n for n in ns]} for p, ns in sizes])
    assert [len(row["prompt_ids"]) for row in longest_rows(data, 3)] == [9, 1, 2]
    assert [len(row["prompt_ids"]) for row in longest_rows(data.select([3, 1]))] == [5, 3]
    assert [len(row["prompt_ids"]) for row in longest_rows(data.select_columns(["prompt_ids"]), 1)] == [9]


def test_a_model_without_wrappers_is_not_searched_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Accelerate's search through all modules takes as long as a layer of a small model on a GPU."""
    trainer = dpo(tmp_path, pairs(2))
    branches = build_branches([([5, 6], [[7], [8, 9]])], pad_token_id=0)
    trainer.runner.run(trainer.model, branches)
    wrapped = torch.nn.parallel.DataParallel(trainer.model)
    assert trainer.runner._unwrap(wrapped) is trainer.model
    monkeypatch.setattr(trainer.accelerator, "unwrap_model", None)
    trainer.runner.run(trainer.model, branches)


# ---- layouts compared with the model's own numbers ----

WINDOW = 140
"""Tokens that a layer of `windowed` sees, by columns of a row."""
WIDE = [(list(range(1, 71)), [list(range(60 * n, 60 * n + 60)) for n in (1, 2)])]
"""One document whose rows, of 130 tokens, fit into the window and whose branches, in 190 columns, don't."""
LONG = [(list(range(1, 91)), WIDE[0][1])]
"""One whose rows of 150 tokens don't fit either."""
SHORT = [(list(range(1, 9)), [[10, 11, 12], [13, 14]])]


def windowed(*, told: bool, kind: type[Any] = GPTNeoForCausalLM) -> Any:
    """A model with a local layer; its config tells how far that sees, or doesn't."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 260, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "initializer_range": 0.5}
    config = GPTNeoConfig(**sizes, attention_types=[[["global", "local"], 1]], window_size=WINDOW)
    config.num_labels = 1
    model = kind(config).eval()
    if not told:
        del vars(config)["window_size"]
    return model


def runner_of(out: Path, model: Any, longest: Any = (), tokens: int = 10**6, **changes: Any) -> LayoutRunner:
    args = DPOConfig(**options(out, **changes))
    lengths: list[list[Lengths]] = [[(len(prompt), list(map(len, responses)))] for prompt, responses in LONG]
    data = RunData(lengths=lambda: lengths, longest=lambda: list(longest), tokens=lambda: tokens)
    return LayoutRunner(args, Accelerator(), data, lambda: [model], sharded=False)


@torch.no_grad()
def error(runner: LayoutRunner, model: Any, documents: Any) -> float:
    """How far a batch's log-probs are from the model's own, at most."""
    batch = build_branches(documents, pad_token_id=0)
    own = model(batch.as_separate(), full_logits=True)
    return float((runner.run(model, batch)[0] - own).abs().max())


@pytest.mark.parametrize("documents", [WIDE, LONG], ids=["fits alone", "doesn't fit"])
@pytest.mark.parametrize("told", [True, False])
def test_what_depends_on_distance_gives_the_models_own_numbers_on_the_longest_rows(
    tmp_path: Path, documents: Any, told: bool
):
    model = PolicyModel(windowed(told=told))
    batch = build_branches(documents, pad_token_id=0)
    with torch.no_grad():
        assert (model(batch) - model(batch.as_separate())).abs().max() > 0.01, "branches would be wrong"
    assert error(runner_of(tmp_path, model, documents), model, documents) < 1e-4
    if told:  # too short a run to look at more than 96 tokens: the config decides
        assert error(runner_of(tmp_path, model, 2 * documents, tokens=0), model, documents) < 1e-4


def test_a_longer_batch_than_was_compared_is_compared_again(tmp_path: Path):
    model = PolicyModel(windowed(told=False))
    runner = runner_of(tmp_path, model, SHORT)
    assert error(runner, model, SHORT) < 1e-4 and not runner.separate
    assert error(runner, model, WIDE) < 1e-4 and runner.separate
    announced = runner_of(tmp_path, model, SHORT)
    announced.run(model, build_branches(SHORT, pad_token_id=0))
    announced.expect(WIDE)  # of a data set to come: processes have to look at the same time
    assert error(announced, model, SHORT) < 1e-4 and announced.separate


def test_a_layout_that_was_asked_for_is_compared_too(tmp_path: Path):
    model = PolicyModel(windowed(told=False))
    with pytest.raises(
        UserError, match=r"layout is 'branch', and this model doesn't honour .* use layout='auto' or 'separate'"
    ):
        error(runner_of(tmp_path, model, WIDE, layout="branch"), model, WIDE)

    class Looks(PolicyModel):
        """Looks at how wide its batch is, which padding changes."""

        def inner_forward(self, branches: Branches) -> Any:
            with torch.no_grad():
                cast(Any, self.model).transformer.ln_f.bias[0] = branches.input_ids.shape[1] - 9
            return super().inner_forward(branches)

    padded = [([1, 2, 3], [[4, 5], [6] * 40])]
    model = Looks(windowed(told=False))
    with pytest.raises(UserError, match="numbers for padded rows differ from those of each row alone"):
        error(runner_of(tmp_path, model, padded, layout="separate"), model, padded)


def test_a_short_run_compares_shorter_rows_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    model, documents = PolicyModel(windowed(told=False)), 2 * LONG
    batch = build_branches(documents, pad_token_id=0)
    with caplog.at_level("INFO", logger="hf_align"):
        runner_of(tmp_path, model, documents, tokens=1000).run(model, batch)
        assert "checked on 96 of the longest row's 150 tokens: more would take over 1% of this run" in caplog.text
        caplog.clear()
        runner_of(tmp_path, model, documents).run(model, batch)
        assert "of up to 150 tokens (0.2% of the run)" in caplog.text


def test_evaluation_alone_is_compared_on_its_own_longest_rows(tmp_path: Path):
    config = DPOConfig(**options(tmp_path, per_device_eval_batch_size=2, max_length=None))
    model = windowed(told=False)
    trainer = DPOTrainer(model, args=config, eval_dataset=rows(8, 4), processing_class=tiny_tokenizer())
    trainer.runner.share = 10
    trainer.evaluate()
    assert not trainer.runner.separate
    trainer.evaluate(rows(90, 60, 2))
    assert trainer.runner.separate
    assert error(trainer.runner, trainer.model, LONG) < 1e-4


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (GPTNeoConfig(), 256),
        (GPTNeoConfig(attention_types=[[["global"], 24]]), None),
        (transformers.MistralConfig(sliding_window=64), 64),
        (transformers.Qwen2Config(), None),
        (transformers.Gemma3TextConfig(sliding_window=64), 64),
        (transformers.ModernBertDecoderConfig(), 64),
        (transformers.RecurrentGemmaConfig(), 2048),
        (transformers.Llama4TextConfig(attention_chunk_size=128), 128),
        (transformers.LlamaConfig(), None),
        (transformers.GPT2Config(), None),
        (transformers.BloomConfig(), None),
    ],
)
def test_windows_are_known_whatever_a_family_calls_them(config: Any, window: int | None):
    assert attention_window(config) == window


def test_scoring_compares_again_when_longer_texts_come():
    model = RewardModel(windowed(told=False, kind=GPTNeoForSequenceClassification), tiny_tokenizer())
    for shares, documents in ((True, SHORT), (False, WIDE)):
        prompt, responses = documents[0]
        together = model.score_ids([prompt] * len(responses), responses)
        assert together == pytest.approx([model.score_ids([prompt], [r])[0] for r in responses], abs=1e-4)
        assert model.shares_prompts is shares
