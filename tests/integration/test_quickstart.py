"""`hf-align quickstart --profile smoke`, once, on the real model; all tests read its output."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_align.cli.main import main
from hf_align.experiments.quickstart.stages import STAGES
from hf_align.models.reward import load_reward_model


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    assert main(["quickstart", "--profile", "smoke", "--out", str(folder), "--seed", "1"]) == 0
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_metrics_hold_what_is_needed_to_judge_and_repeat_the_run(out: Path) -> None:
    metrics = read(out / "metrics.json")
    assert metrics["command"].startswith("hf-align quickstart --profile smoke")
    assert metrics["settings"]["seed"] == 1
    assert metrics["versions"]["torch"] == torch.__version__
    assert set(metrics["reward_model"]) == {"all", "movies", "products", "tweets"}
    assert set(metrics["reward_model"]["all"]["scorers"]) == {"reward model", "VADER", "single human"}
    assert set(metrics["policies"]["all"]["policies"]) == {"base", "dpo", "ipo", "ppo"}
    assert metrics["policies"]["all"]["prompts"] == 18
    assert list(metrics["seconds"]) == [stage.name for stage in STAGES]
    for name in ("dpo", "ipo"):
        assert 0 <= metrics["held_out"][name]["rewards/accuracies"] <= 1
        gain = metrics["policies"]["all"]["policies"][name]["gain"]
        assert -2 <= gain <= 2
    assert metrics["episodes"] == 16
    course = metrics["ppo_course"]["rollouts"]
    assert [rollout["episode"] for rollout in course] == [8, 16]
    assert course[0]["objective/kl"] == pytest.approx(0, abs=1e-3), "the first rollout is the base's"
    assert metrics["ppo_course"]["kl_last_third"] == course[-1]["objective/kl"]
    assert metrics["held_out"]["ppo"]["objective/kl"] < 12, "two rollouts don't take a policy far"
    assert metrics["policies"]["all"]["policies"]["base"]["reward_sd"] > 0


@pytest.mark.slow
def test_training_left_curves_and_no_checkpoints(out: Path) -> None:
    for stage, steps in (("reward", 4), ("dpo", 3), ("ipo", 3)):
        history = read(out / stage / "history.json")
        assert [entry["step"] for entry in history if "loss" in entry] == list(range(1, steps + 1))
        assert not (out / stage / "checkpoints").exists()
    # Before the first update policy and reference are the same model.
    assert read(out / "dpo" / "history.json")[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.slow
def test_the_reports_samples_differ_between_policies(out: Path) -> None:
    samples = read(out / "evaluation" / "policies" / "samples.json")
    assert len(samples) == 18
    for name in ("dpo", "ipo", "ppo"):
        assert any(row["policies"]["base"]["text"] != row["policies"][name]["text"] for row in samples)


@pytest.mark.slow
def test_report_is_one_page_that_can_be_parsed(out: Path) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    HTMLParser().feed(page)
    assert "smoke" in page
    assert page.count("<svg") == 14


PROMPT = [{"role": "user", "content": "Write a tweet."}]
RESPONSES = ["I love this so much!", "This is the worst day ever."]


@pytest.mark.slow
def test_plain_transformers_loads_the_merged_reward_model(out: Path) -> None:
    ours = load_reward_model(out / "reward").score([PROMPT] * 2, RESPONSES)
    tokenizer = AutoTokenizer.from_pretrained(out / "reward-merged")
    texts = [
        tokenizer.apply_chat_template([*PROMPT, {"role": "assistant", "content": text}], tokenize=False).rstrip("\n")
        for text in RESPONSES
    ]
    model = AutoModelForSequenceClassification.from_pretrained(out / "reward-merged", dtype=torch.float32)
    for side in ("left", "right"):
        batch = tokenizer(texts, padding=True, padding_side=side, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            assert model(**batch).logits[:, 0].tolist() == pytest.approx(ours, abs=1e-4)
    scorer: Any = pipeline("text-classification", str(out / "reward-merged"), dtype=torch.float32)
    assert [row["score"] for row in scorer(texts)] == pytest.approx(ours, abs=1e-4)
    adapter = AutoPeftModelForSequenceClassification.from_pretrained(out / "reward", num_labels=1, dtype=torch.float32)
    adapter.config.pad_token_id = tokenizer.pad_token_id
    batch = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        assert adapter.eval()(**batch).logits[:, 0].tolist() == pytest.approx(ours, abs=1e-4)


@pytest.mark.slow
def test_plain_peft_and_transformers_load_the_policies(out: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(out / "dpo")
    batch = tokenizer("Write a tweet.", return_tensors="pt")
    logits = {}
    with torch.no_grad():
        for name in ("base", "dpo", "ipo", "ppo"):
            logits[name] = AutoModelForCausalLM.from_pretrained(out / name, dtype=torch.float32)(**batch).logits
        peft = AutoPeftModelForCausalLM.from_pretrained(out / "dpo", dtype=torch.float32).eval()(**batch).logits
    assert torch.allclose(logits["dpo"], peft, atol=1e-4)
    assert not torch.allclose(logits["dpo"], logits["base"], atol=1e-4)
    assert not torch.allclose(logits["dpo"], logits["ipo"], atol=1e-4)
    assert not torch.allclose(logits["ppo"], logits["base"], atol=1e-4)
    assert (out / "ppo" / "value_head.safetensors").exists()


@pytest.mark.slow
def test_a_second_run_is_refused(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quickstart", "--profile", "smoke", "--out", str(out), "--seed", "1"]) == 2
    assert capsys.readouterr().err.startswith("hf-align: error: --out: ")
    assert main(["quickstart", "--profile", "smoke", "--out", str(out), "--resume"]) == 2
    assert "seed = 1, not 0" in capsys.readouterr().err


@pytest.mark.slow
def test_resuming_a_finished_run_keeps_every_stage(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read(out / "metrics.json")
    (out / "report.html").unlink()
    assert main(["quickstart", "--profile", "smoke", "--out", str(out), "--seed", "1", "--resume"]) == 0
    assert capsys.readouterr().out.count("already done") == len(STAGES)
    assert (out / "report.html").exists()
    after = read(out / "metrics.json")
    assert {**after, "command": ""} == {**before, "command": ""}
