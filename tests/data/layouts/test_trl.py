"""TRL's own functions make of the converted pairs what the trainers here make of them."""

from pathlib import Path
from typing import Any

import pytest
from trl.data_utils import apply_chat_template, extract_prompt, is_conversational
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from hf_align.collators.rows import Pair, content_of, read_pair, word_ends
from hf_align.data.layouts.conversion import convert_rows
from tests.data.layouts.examples import EXAMPLES
from tests.tiny import tiny_tokenizer

SIDES = ("prompt", "chosen", "rejected")


def test_trl_reads_every_converted_pair_as_the_trainers_here_do() -> None:
    """By TRL 1.16's functions: the prompt extracted where it is implicit, the chat template written."""
    tokenizer = tiny_tokenizer()
    for example in EXAMPLES:
        rows = convert_rows(example.rows, as_pairs=True, min_gap=0).rows.to_list()
        for row in (row for row in rows if row["chosen"] != row["rejected"]):  # to find those is inspection's part
            sides: Any = {name: row[name] for name in SIDES if name in row}
            sides = sides if "prompt" in sides else extract_prompt(sides)
            kinds = {is_conversational({name: sides[name]}) for name in SIDES}
            assert len(kinds) == 1, f"{example.layout}: text and messages in one row, which TRL refuses"
            read: Any = read_pair(dict(row))
            if kinds == {True}:
                _check_conversation(apply_chat_template(sides, tokenizer), read)
            elif read.prompt is None and isinstance(read.chosen, str) and isinstance(read.rejected, str):
                assert len(sides["prompt"]) >= max(word_ends(read.chosen, read.rejected))  # TRL's may end in a word
            else:
                assert sides == {name: getattr(read, name) for name in SIDES}


def _check_conversation(written: dict[str, str], read: Pair) -> None:
    for name in SIDES:
        place = 0
        for message in getattr(read, name):
            place = written[name].index(content_of(message), place) + len(content_of(message))
    assert written["prompt"].endswith("assistant\n") and written["chosen"] != written["rejected"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ultrafeedback", "hh_transcripts", "helpsteer3", "arena"])
def test_trl_trains_on_converted_pairs(layout: str, tiny_model_dir: str, tmp_path: Path) -> None:
    example = next(each for each in EXAMPLES if each.layout.startswith(layout))
    pairs = convert_rows(example.rows, as_pairs=True, min_gap=0).rows
    common: dict[str, Any] = {"max_steps": 1, "report_to": "none", "use_cpu": True, "per_device_train_batch_size": 1}
    given: dict[str, Any] = {"train_dataset": pairs, "processing_class": tiny_tokenizer()}
    theirs: list[tuple[Any, Any]] = [
        (DPOTrainer, DPOConfig(str(tmp_path / "dpo"), **common)),
        (RewardTrainer, RewardConfig(str(tmp_path / "reward"), **common)),
    ]
    for trainer, args in theirs:
        made = trainer(tiny_model_dir, args=args, **given)
        made.train()
        assert made.state.global_step == 1
