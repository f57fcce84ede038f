"""Questions to a model, answered by log-probs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.feedback import ConstitutionConfig, Prompt
from hf_align.feedback.collection.writers import open_model
from hf_align.feedback.constitution.conversation import ask_check, ask_empty_check
from hf_align.feedback.constitution.work import Work, answer_odds
from hf_align.rollouts.sampler import Sampler
from tests.feedback.constitution.samples import CONSTITUTION, KIND, TRUE, talk
from tests.tiny import tiny_model, tiny_tokenizer

MODEL, TOKENIZER = tiny_model(), tiny_tokenizer()
PROMPTS = [Prompt([{"role": "user", "content": text}]) for text in ("Well?", "And a longer one: why?", "So")]


def plain_odds(prompt: Prompt) -> float:
    """Log-odds of "Y" against "N" from the model's own logits of the one row."""
    content: Any = prompt.content
    text: Any = TOKENIZER.apply_chat_template(content, add_generation_prompt=True, tokenize=False)
    ids: Any = TOKENIZER(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    yes, no = (TOKENIZER(word, add_special_tokens=False)["input_ids"][0] for word in "YN")
    with torch.no_grad():
        logits = MODEL(ids).logits[0, -1].double()
    return float(logits[yes] - logits[no])


def make(parts: Parts | None = None, **options: Any) -> Work:
    config = ConstitutionConfig(examples=1, **options)
    return Work(CONSTITUTION, config, open_model((MODEL, TOKENIZER), "tiny"), parts or Parts())


def test_answers_have_the_odds_of_the_models_own_logits() -> None:
    found = answer_odds(Sampler(MODEL, TOKENIZER), PROMPTS, "Yes", "No")
    assert found == pytest.approx([plain_odds(prompt) for prompt in PROMPTS], abs=1e-4)
    with pytest.raises(UserError, match="'Yes' and 'Yo' begin with the same token of this model"):
        answer_odds(Sampler(MODEL, TOKENIZER), PROMPTS, "Yes", "Yo")


def test_the_odds_about_nothing_are_taken_from_those_about_a_response() -> None:
    messages = [{"role": "user", "content": "Well?"}]
    for calibrate in (True, False):
        found = make(calibrate=calibrate).broken([(PROMPTS[0], "Yes.", KIND), (PROMPTS[0], "No.", TRUE)])
        for broken, response, principle in zip(found, ("Yes.", "No."), (KIND, TRUE), strict=True):
            odds = plain_odds(Prompt(ask_check(CONSTITUTION, 1, messages, response, principle)))
            empty = plain_odds(Prompt(ask_empty_check(CONSTITUTION, 1, principle)))
            assert broken == pytest.approx(1 / (1 + math.exp(-(odds - calibrate * empty))), abs=1e-4)


def test_functions_and_models_without_check_are_not_asked() -> None:
    work = Work(CONSTITUTION, ConstitutionConfig(), open_model(talk), Parts())
    assert work.broken([(PROMPTS[0], "Yes.", KIND)]) == [None]
    assert make(check=False).broken([(PROMPTS[0], "Yes.", KIND)]) == [None]


def test_what_is_stored_is_not_computed_again_and_comes_back_bitwise(tmp_path: Path) -> None:
    def ask(parts: Parts) -> object:
        work = make(parts)
        texts = work.write(PROMPTS, "initial", temperature=1.0, max_new_tokens=5, count=2)
        return texts, work.broken([(prompt, "Yes.", KIND) for prompt in PROMPTS])

    first = ask(parts := Parts(tmp_path))
    assert parts.found == 0
    assert ask(again := Parts(tmp_path)) == first == ask(Parts())
    assert again.found == 3  # texts, the question about nothing, questions
