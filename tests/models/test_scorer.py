"""Any reward model of the Hub scores, in a template that is named; what can't be right is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_align.errors import UserError
from hf_align.models.reward import RewardModel
from hf_align.models.scorer import Scorer, load_scorer
from hf_align.models.text_classifier import TextClassifier
from tests.models.layouts import LAYOUTS, pair_tokenizer, save
from tests.tiny import CHAT, save_tiny, tiny_tokenizer

OUTPUTS = {"ten outputs": "overall", "two classes": "better", "adapter with two outputs": "1"}
SHARED = ("decoder", "pad is EOS", "no pad token", "no chat template", "learnt positions", "adapter")
"""Those that RewardModel loads, which scores a prompt's responses together."""
PROMPTS = ["Say hi.", "Is water wet? Answer at length.", "No."] * 6
RESPONSES = [n * " it is" + ("" if n == 3 else ".") for n in range(18)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("layouts")
    return {name: make(root / name.replace(" ", "-")) for name, make in LAYOUTS.items()}


def plain_scores(folder: str, name: str) -> list[float]:
    """Scores by plain transformers or peft, one row at a time and without any padding."""
    adapter = (Path(folder) / "adapter_config.json").exists()
    if adapter:
        model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=2 if "two" in name else 1)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer, scores = AutoTokenizer.from_pretrained(folder), []
    ends = tokenizer.eos_token is not None
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        texts = (f"{prompt}{response}{tokenizer.eos_token}",) if ends else (prompt, response)
        inputs = tokenizer(*texts, return_tensors="pt")
        model.eval()
        if ends:  # no padding, so that the last token is scored
            model.config.get_text_config().pad_token_id = None
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        column = {"overall": 9, "better": 1, "1": 1}.get(OUTPUTS.get(name, ""), 0)
        scores.append(float(logits[1] - logits[0] if name == "two classes" else logits[column]))
    return scores


@pytest.mark.parametrize("name", LAYOUTS)
def test_scores_are_those_of_plain_transformers_in_any_batch(name: str, folders: dict[str, str]):
    scorer = load_scorer(folders[name], output=OUTPUTS.get(name), dtype=torch.float32)
    expected = plain_scores(folders[name], name)
    assert torch.tensor(expected).std() > 0.01 and len(set(expected)) == 18
    assert isinstance(scorer.model, RewardModel) == (name in SHARED)
    for side, size in (("left", 16), ("right", 3), ("right", 16), ("left", 3), ("left", 1)):  # one row has no padding
        scorer.tokenizer.padding_side = side
        scores = [
            score
            for start in range(0, len(PROMPTS), size)
            for score in scorer.score(PROMPTS[start : start + size], RESPONSES[start : start + size])
        ]
        assert scores == pytest.approx(expected, abs=1e-5), (side, size)
    said = scorer.template_of(PROMPTS)
    assert said.startswith("none: prompt and response are ")
    assert ("pair of texts" in said) == (scorer.tokenizer.eos_token is None)
    assert scorer.padded_with_end == (name == "pad is EOS")


def test_the_output_that_is_the_reward_has_to_be_named(folders: dict[str, str]):
    with pytest.raises(UserError, match=r"two-classes has 2 outputs \(0: worse, 1: Better\); choose"):
        load_scorer(folders["two classes"])
    with pytest.raises(UserError, match=r"output is 'best', and .* has 0: worse, 1: Better; give one of"):
        load_scorer(folders["two classes"], output="best")
    with pytest.raises(UserError, match=r"output is 3, and .* has 0: LABEL_0;"):
        load_scorer(folders["encoder"], output=3)
    assert str(load_scorer(folders["ten outputs"], output="9").output) == "overall (output 9 in 0 to 9, as it is)"
    assert "log odds" in str(load_scorer(folders["two classes"], output=1).output)


MESSAGES = [[{"role": "user", "content": "Hi."}]]
ANSWER = [{"role": "assistant", "content": "Ho."}]


def test_messages_are_written_by_a_template_that_is_named_or_refused(folders: dict[str, str], tmp_path: Path):
    for name in ("no chat template", "encoder"):
        with pytest.raises(UserError, match=r"messages, and the tokenizer of .* has no chat template"):
            load_scorer(folders[name], messages=True)
        with pytest.raises(UserError, match=r"messages, and the tokenizer of .* has no chat template"):
            load_scorer(folders[name]).score(MESSAGES, [ANSWER])
    scorer = load_scorer(folders["decoder"], messages=True)
    expected = scorer.score(MESSAGES, [ANSWER])
    assert scorer.template_of(MESSAGES) == "the tokenizer's chat template"
    assert scorer.leaves_template_unused(["Hi."]) and not scorer.leaves_template_unused(MESSAGES)
    used = load_scorer(folders["decoder"], chat_template="tokenizer")
    assert used.score(["Hi."], ["Ho."]) == used.score(["Hi."], [ANSWER]) == expected != scorer.score(["Hi."], ["Ho."])
    assert used.template_of(["Hi."]) == "the tokenizer's chat template"
    (tmp_path / "chat.jinja").write_text(CHAT)
    for given in (CHAT, str(tmp_path / "chat.jinja")):
        scorer = load_scorer(folders["no chat template"], chat_template=given)
        assert scorer.template_of(["Hi."]) == "the chat template that was given"
        assert scorer.score(["Hi."], ["Ho."]) == scorer.score(MESSAGES, [ANSWER])
    for given, message in (
        ("tokenizer", "the tokenizer of .* has none"),
        ("nowhere.jinja", "there is no file nowhere"),
    ):
        with pytest.raises(UserError, match=message):
            load_scorer(folders["no chat template"], chat_template=given)


def test_an_encoder_reads_a_template_as_one_text(folders: dict[str, str]):
    joined = "{{ messages[0]['content'] }} | {{ messages[1]['content'] }}"
    scorer = load_scorer(folders["encoder"], chat_template=joined)
    model = AutoModelForSequenceClassification.from_pretrained(folders["encoder"])
    with torch.no_grad():
        expected = model(**pair_tokenizer()("Hi. | Ho.", return_tensors="pt")).logits[0]
    assert scorer.score(["Hi."], ["Ho."]) == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_text_longer_than_the_model_reads_loses_the_start_of_its_prompt_and_says_so(
    folders: dict[str, str], caplog: pytest.LogCaptureFixture
):
    scorer = load_scorer(folders["encoder"])
    kept = 512 - 3 - len(" c")
    expected = scorer.score(["b" * kept], [" c"])
    longer = ["a" + "b" * kept, "a" * kept + "b" * kept]
    assert scorer.score(longer, [" c"] * 2) == pytest.approx(expected * 2, abs=1e-5)
    assert scorer.score(["a" + "b" * (kept - 1)], [" c"]) != pytest.approx(expected, abs=1e-5)
    assert isinstance(scorer.model, TextClassifier) and scorer.model.cut == 2
    scorer.score(longer, [" c"] * 2)
    assert caplog.text.count("reads 512 tokens") == 1
    with pytest.raises(UserError, match="a response longer than the 512 tokens that the model reads"):
        scorer.score(["a"], ["b" * 600])


def test_what_would_score_at_random_is_refused(folders: dict[str, str], tiny_model_dir: str, tmp_path: Path):
    with pytest.raises(UserError, match="has no reward head and would score at random"):
        load_scorer(tiny_model_dir)
    with pytest.raises(UserError, match="has no reward head and would score at random"):
        load_scorer(save_tiny(tmp_path / "nameless", architectures=None))
    model = AutoModelForSequenceClassification.from_pretrained(folders["encoder"])
    save(tmp_path / "headless", model, pair_tokenizer())
    weights: dict[str, Any] = {name: value for name, value in model.state_dict().items() if "classifier" not in name}
    model.save_pretrained(tmp_path / "headless", state_dict=weights)
    with pytest.raises(UserError, match=r"lacks the weights classifier.bias, classifier.weight, which would be random"):
        load_scorer(tmp_path / "headless")


def test_our_own_models_load_with_their_head_and_pooling(tiny_model_dir: str, tmp_path: Path):
    model = RewardModel.from_backbone(tiny_model_dir, lora=True)
    model.save_pretrained(tmp_path)
    scorer = load_scorer(tmp_path)
    assert isinstance(scorer, Scorer)
    assert scorer.score(PROMPTS, RESPONSES) == pytest.approx(model.score(PROMPTS, RESPONSES), abs=1e-5)
    end = tiny_tokenizer().eos_token
    assert isinstance(end, str) and end in scorer.template_of(PROMPTS)
