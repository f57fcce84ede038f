"""`hf-align score` with the real model, against plain transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_align import RewardModel
from hf_align.cli.main import main
from hf_align.data.embedded.rows import make_pairs, make_prompts


@pytest.fixture(scope="module")
def reward(base_dir: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("reward")
    RewardModel.from_backbone(base_dir).save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def plain_scores(folder: str, texts: list[str]) -> list[float]:
    """Each text alone, by transformers' own classifier."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return [model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits.item() for text in texts]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_a_data_set_gets_the_scores_that_plain_transformers_gives(reward: str, tmp_path: Path) -> None:
    make_pairs("validation", 12).to_parquet(tmp_path / "pairs.parquet")
    out = tmp_path / "scored.jsonl"
    assert main(["score", "--model", reward, str(tmp_path / "pairs.parquet"), str(out)]) == 0
    tokenizer = AutoTokenizer.from_pretrained(reward)
    for side in ("chosen", "rejected"):
        turns = [[*row["prompt"], *row[side]] for row in lines(out)]
        texts = [tokenizer.apply_chat_template(each, tokenize=False).rstrip("\n") for each in turns]
        assert [row[f"score_{side}"] for row in lines(out)] == pytest.approx(plain_scores(reward, texts), abs=1e-3)


@pytest.mark.slow
def test_the_best_sample_is_plain_transformers_best(reward: str, base_dir: str, tmp_path: Path) -> None:
    make_prompts("test", 6).to_parquet(tmp_path / "prompts.parquet")
    out = tmp_path / "all.jsonl"
    words = ["score", "--model", reward, str(tmp_path / "prompts.parquet"), str(out)]
    words += ["--best-of", "4", "--policy", base_dir, "--max-new-tokens", "24"]
    assert main([*words, "--keep", "all"]) == 0
    rows = lines(out)
    assert main([*words, "--overwrite"]) == 0
    tokenizer = AutoTokenizer.from_pretrained(reward)
    for row, best in zip(rows, lines(out), strict=True):
        start = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        if row["prompt"][-1]["role"] == "assistant":
            start = tokenizer.apply_chat_template(row["prompt"], tokenize=False, continue_final_message=True)
        ends = ["<|im_end|>" if ended else "" for ended in row["finished"]]
        texts = [f"{start}{text}{end}" for text, end in zip(row["responses"], ends, strict=True)]
        scores = plain_scores(reward, texts)
        assert row["scores"] == pytest.approx(scores, abs=1e-3)
        assert best["completion"] == row["responses"][max(range(len(scores)), key=scores.__getitem__)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keep", "command"), [("best", "sft"), ("pairs", "dpo"), ("pairs", "reward"), ("all", "reward")]
)
def test_what_is_kept_is_ready_for_training(
    keep: str, command: str, tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RewardModel.from_backbone(tiny_model_dir).save_pretrained("reward")
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"{n}?"}) + "\n" for n in range(4)))
    words = ["score", "--model", "reward", "prompts.jsonl", "kept.jsonl", "--best-of", "4", "--policy", tiny_model_dir]
    assert main([*words, "--max-new-tokens", "6", "--keep", keep]) == 0
    words = [command, "--model", tiny_model_dir, "--train_dataset", "kept.jsonl", "--output_dir", "out"]
    assert main([*words, "--max_steps", "1", "--per_device_train_batch_size", "2", "--report_to", "none"]) == 0
