"""The code on a reward model's card, run: each way to load it that the card shows gives the model's own scores."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from hf_align.model_cards import describe_folder, render_card
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig

PROMPT, RESPONSE = [{"role": "user", "content": "Review the film."}], "A warm, funny film."
ROWS = [{"prompt": "Review it: ", "chosen": "A joy, all of it.", "rejected": "No."}] * 2
PLAIN, MEAN = RewardModelConfig(), RewardModelConfig("mean", "mlp")
ATTENTION = RewardModelConfig(head="attention", tasks={"helpful": "regression", "tone": 3}, projection=True)


def printed_by_cards_code(folder: Path, base: str) -> list[list[Any]]:
    """What each code block on the card of a saved model prints, as Python values."""
    facts = describe_folder(folder)
    facts.base_model = base if facts.library == "peft" else None
    printed = []
    for code in re.findall(r"```python\n(.*?)```", render_card(facts, str(folder)), re.DOTALL):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, "card", "exec"), {})
        printed.append([ast.literal_eval(line) for line in output.getvalue().splitlines()])
    return printed


@pytest.mark.parametrize(
    ("config", "lora", "ways"),
    [
        (PLAIN, False, ["transformers"]),
        (PLAIN, True, ["transformers"]),
        (MEAN, False, ["hf_align", "transformers"]),
        (MEAN, True, ["hf_align"]),
        (ATTENTION, False, ["hf_align", "transformers"]),
    ],
    ids=["plain", "plain-adapter", "mean", "mean-adapter", "attention-tasks"],
)
def test_the_cards_code_gives_the_models_scores(
    config: RewardModelConfig, lora: bool, ways: list[str], tiny_model_dir: str, tmp_path: Path
):
    model = RewardModel.from_backbone(tiny_model_dir, config, lora=lora)
    model.save_pretrained(tmp_path / "model")
    score = model.score([PROMPT], [RESPONSE])[0]
    printed = printed_by_cards_code(tmp_path / "model", tiny_model_dir)
    assert len(printed) == len(ways)
    for way, values in zip(ways, printed, strict=True):
        assert values[0] == pytest.approx([score] if way == "hf_align" else score, abs=1e-5)
        if way == "hf_align" and config.tasks:
            assert values[1]["helpful"] == pytest.approx(model.score_tasks([PROMPT], [RESPONSE])["helpful"], abs=1e-5)


@pytest.mark.parametrize("config", [PLAIN, MEAN], ids=["plain", "mean"])
def test_a_normalised_model_s_card_names_who_adds_the_offset(
    config: RewardModelConfig, tiny_model_dir: str, tmp_path: Path
):
    model = RewardModel.from_backbone(tiny_model_dir, config)
    offset = model.normalize(ROWS, "two reviews").offset
    model.save_pretrained(tmp_path / "model")
    score = model.score([PROMPT], [RESPONSE])[0]
    first, second = (values[0] for values in printed_by_cards_code(tmp_path / "model", tiny_model_dir))
    if config == PLAIN:  # transformers alone, then ours
        assert (
            abs(offset) > 1e-3 and first == pytest.approx(score - offset, abs=1e-5) and second == pytest.approx([score])
        )
    else:  # ours, then the code that travels along
        assert first == pytest.approx([score]) and second == pytest.approx(score, abs=1e-5)
    assert "normalised on two reviews (2 rows)" in render_card(describe_folder(tmp_path / "model"))
