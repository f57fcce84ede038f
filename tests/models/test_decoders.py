"""Models that read a text both ways, or with an encoder of its own, are refused; decoders are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedConfig

from hf_align import DPOConfig, DPOTrainer, PPOConfig, PPOTrainer, RewardConfig, RewardTrainer, load_policy
from hf_align.cli.main import main
from hf_align.errors import UserError
from hf_align.models.decoders import check_causal, check_decoder, check_decoder_config
from hf_align.models.policy import PolicyModel
from hf_align.models.reward import RewardModel
from hf_align.trainers import SFTConfig, SFTTrainer
from tests.families import FAMILIES
from tests.tiny import save_tiny, tiny_tokenizer
from tests.trainers.pairs import options, text_pairs

SIZES = {
    "vocab_size": 260,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
HALVES = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
BOTH_WAYS: dict[str, dict[str, Any]] = {  # from the config and the modules that it makes
    "BertConfig": SIZES,
    "RobertaConfig": SIZES,
    "RoFormerConfig": SIZES,
    "MegatronBertConfig": SIZES,
    "BartConfig": {**HALVES, "vocab_size": 260, "decoder_attention_heads": 2},
    "T5Config": {"vocab_size": 260, "d_model": 32, "num_layers": 1, "num_heads": 4},
    "ModernBertConfig": {**SIZES, "pad_token_id": 0},
}
REFUSED = "encoder-decoder model|is not a language model that writes text|reads a text both ways"
NO_SWITCH: dict[str, dict[str, Any]] = {  # only running it tells
    "XLNetConfig": {"vocab_size": 260, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64},
    "XLMConfig": {"vocab_size": 260, "emb_dim": 32, "n_layers": 1, "n_heads": 4},
}
DECODERS: dict[str, dict[str, Any]] = {  # with a switch that says no decoder, and isn't read; or that says decoder
    "GPTNeoXConfig": SIZES,
    "GPTNeoXJapaneseConfig": SIZES,
    "BertConfig": {**SIZES, "is_decoder": True},
    "RoFormerConfig": {**SIZES, "is_decoder": True},
}


def config_of(name: str, settings: dict[str, Any]) -> PreTrainedConfig:
    return getattr(transformers, name)(**settings)


def saved(config: PreTrainedConfig, folder: Path) -> str:
    config.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_what_is_no_decoder_is_refused_before_a_weight_is_read(name: str, tmp_path: Path):
    folder = saved(config_of(name, BOTH_WAYS[name]), tmp_path / "model")
    for load in (load_policy, RewardModel.from_backbone):
        with pytest.raises(UserError, match=REFUSED):
            load(folder)


@pytest.mark.parametrize("name", ["BertConfig", "BartConfig"])
def test_every_trainer_and_command_refuses_them(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, rows = saved(config_of(name, BOTH_WAYS[name]), tmp_path / "model"), text_pairs(2)
    prompts, out = rows.select_columns("prompt"), tmp_path / "out"

    def reward(prompts: list[str], responses: list[str]) -> list[float]:
        return [0.0] * len(responses)

    for train in (
        lambda: DPOTrainer(folder, args=DPOConfig(**options(out)), train_dataset=rows),
        lambda: RewardTrainer(folder, args=RewardConfig(**options(out)), train_dataset=rows),
        lambda: PPOTrainer(folder, args=PPOConfig(**options(out)), train_dataset=prompts, reward=reward),
        lambda: SFTTrainer(folder, SFTConfig(**options(out)), train_dataset=Dataset.from_dict({"text": ["a"]})),
        lambda: DPOTrainer(save_tiny(tmp_path / "policy"), folder, DPOConfig(**options(out)), train_dataset=rows),
    ):
        with pytest.raises(UserError, match=REFUSED):
            train()
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    for command in ("dpo", "reward"):
        flags = ["--train_dataset", str(tmp_path / "rows.jsonl"), "--output_dir", str(out), "--dry-run"]
        assert main([command, "--model", folder, *flags]) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error and "hf_align trains decoders" in error


@pytest.mark.parametrize("name", NO_SWITCH)
def test_a_later_token_that_changes_earlier_ones_gives_an_encoder_away(name: str, tmp_path: Path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(name, NO_SWITCH[name]))
    config = DPOConfig(**options(tmp_path))
    with pytest.raises(UserError, match="model reads a text both ways"):
        DPOTrainer(model, args=config, train_dataset=text_pairs(2), processing_class=tiny_tokenizer())


def test_an_encoder_as_object_is_refused(tmp_path: Path):
    model = AutoModelForCausalLM.from_config(config_of("BertConfig", SIZES))
    args = DPOConfig(**options(tmp_path))
    with pytest.raises(UserError, match=r"model reads a text both ways \(BertLMHeadModel\)"):
        DPOTrainer(model, args=args, train_dataset=text_pairs(2), processing_class=tiny_tokenizer())


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_with_an_encoders_switch_are_taken(name: str):
    config = config_of(name, DECODERS[name])
    check_decoder_config(config, "model")
    model = AutoModelForCausalLM.from_config(config)
    check_decoder(model, "model")
    check_causal(PolicyModel(model), model.get_output_embeddings(), "model")


@pytest.mark.slow
def test_rounding_to_16_bits_is_not_taken_for_a_later_token(tmp_path: Path):
    for name, family in FAMILIES.items():
        model = cast(Any, family.make()).to(torch.bfloat16)
        check_causal(PolicyModel(model), model.get_output_embeddings(), name)
