"""Loss on text by people against transformers' own, and its increase by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_align.errors import UserError
from hf_align.evaluation.human_text import EMBEDDED, HumanText, measure_lost_ability, read_human_text
from hf_align.evaluation.writing import token_logps
from hf_align.progress import Silent
from tests.tiny import save_tiny


def test_the_loss_is_that_of_transformers(tiny_model_dir: str) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model_dir)
    text = read_human_text(["A dull film.", "Great!", "x"], 9, 0).encode([tiny_model_dir])
    assert text.texts == ["A dull film.", "Great!"], "nothing predicts the only token of a text"
    ids = text.encoded[tiny_model_dir]
    logps = token_logps(model, [(each[:1], each[1:]) for each in ids], tokenizer, Silent(), "")
    losses, lengths = [], [len(each) - 1 for each in ids]
    for each in ids:
        rows = torch.tensor([each])
        with torch.no_grad():
            losses.append(float(model(input_ids=rows, labels=rows).loss))
    figures = measure_lost_ability(text, {tiny_model_dir: logps}, tiny_model_dir, resamples=20, seed=0)
    assert figures is not None
    expected = np.dot(losses, lengths) / sum(lengths)
    assert figures["policies"][tiny_model_dir]["nll"] == pytest.approx(expected, rel=1e-5)


def test_the_increase_is_paired_by_text_and_per_byte_where_tokens_differ() -> None:
    ids = [[1, 2, 3], [1, 2]]
    text = HumanText(["äb", "cd"], encoded={"base": ids, "dpo": ids, "other": [[1, 2], [1, 2]]})
    logps = {
        "base": [np.array([-1.0, -1.0]), np.array([-2.0])],
        "dpo": [np.array([-1.5, -1.5]), np.array([-2.5])],
        "other": [np.array([-3.0]), np.array([-3.0])],
    }
    figures = measure_lost_ability(text, logps, "base", resamples=100, seed=0)
    assert figures is not None
    dpo, other = figures["policies"]["dpo"], figures["policies"]["other"]
    assert (dpo["nll"], dpo["increase"], dpo["unit"]) == (pytest.approx(5.5 / 3), pytest.approx(0.5), "token")
    assert dpo["increase_interval"] == pytest.approx([0.5, 0.5], abs=1e-6), "every text loses the same per token"
    assert (other["increase"], other["unit"]) == (pytest.approx(2 / 5), "byte")
    assert "increase" not in figures["policies"]["base"]


def test_texts_are_drawn_cut_and_checked(tmp_path: Path) -> None:
    drawn = read_human_text(None, 5, 0)
    assert len(drawn.texts) == 5 and drawn.source == EMBEDDED and drawn.texts == read_human_text(None, 5, 0).texts
    assert read_human_text(["a" * 3000], 1, 0).cut == 1 and not read_human_text(None, 0, 0).encode(["x"]).texts
    with pytest.raises(UserError, match="human_text is a str; give a list"):
        read_human_text("a text", 1, 0)
    with pytest.raises(UserError, match="human_text: entry 1 is no text"):
        read_human_text(["a", " "], 1, 0)
    short = save_tiny(tmp_path, max_position_embeddings=16)
    with pytest.raises(UserError, match=r"human_text: a text takes 40 tokens and .* has 16 positions"):
        read_human_text(["a" * 40], 1, 0).encode([short])
