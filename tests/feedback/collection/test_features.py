"""Features of responses, on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_align import RewardModel
from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.feedback import Prompt, Response
from hf_align.feedback.collection.features import ResponseFeatures, read_features
from hf_align.feedback.collection.writers import LoadedPolicy, open_models
from hf_align.progress import Silent
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = [Prompt(text) for text in ("Well?", "And a longer one:", "a")]
TEXTS = ("yes", "no, never", "perhaps")
RESPONSES = {each.id: [Response(each.id, f"{text} {n}", "me") for text in TEXTS] for n, each in enumerate(PROMPTS)}
SETTINGS: dict[str, Any] = {"num_hidden_layers": 4}


def features_of(parts: Parts | None = None, **settings: Any) -> ResponseFeatures:
    policy = LoadedPolicy("tiny", tiny_model(**{**SETTINGS, **settings}), tiny_tokenizer())
    return ResponseFeatures(policy, parts or Parts())


def bits(features: dict[str, Any]) -> dict[str, bytes]:
    return {id: row.tobytes() for id, row in features.items()}


def test_each_response_has_features_without_what_its_prompt_adds() -> None:
    found = features_of()(PROMPTS, RESPONSES, Silent())
    assert set(found) == {each.id for responses in RESPONSES.values() for each in responses}
    assert len({row.shape for row in found.values()}) == 1
    for responses in RESPONSES.values():
        rows = np.array([found[each.id] for each in responses])
        assert np.linalg.norm(rows.mean(0)) < 0.5 * np.linalg.norm(rows, axis=1).mean()


def test_states_are_kept_and_depend_on_nothing_but_their_prompt(tmp_path: Path) -> None:
    features, parts = features_of(), Parts(tmp_path)
    expected = bits(features(PROMPTS, RESPONSES, Silent()))
    first = features_of(parts)
    first(PROMPTS[1:2], RESPONSES, Silent())  # and then it was killed
    backwards = {id: responses[::-1] for id, responses in RESPONSES.items()}
    assert bits(features_of(parts)(PROMPTS[::-1], backwards, Silent())) == expected and parts.found == 1
    assert bits(features_of(parts)(PROMPTS, RESPONSES, Silent())) == expected and parts.found == 4
    features_of(parts, seed=1)(PROMPTS, RESPONSES, Silent())
    assert parts.found == 4, "another model has other states"


def test_a_response_that_was_cut_ends_without_an_end() -> None:
    [prompt], texts = PROMPTS[:1], RESPONSES[PROMPTS[0].id]
    cut = [Response(each.prompt_id, each.content, each.source, {"finished": False}) for each in texts[:1]]
    whole = features_of()([prompt], {prompt.id: texts}, Silent())
    other = features_of()([prompt], {prompt.id: [*cut, *texts[1:]]}, Silent())
    assert not np.allclose(whole[texts[0].id], other[texts[0].id])


def test_a_response_beyond_the_models_positions_is_refused() -> None:
    with pytest.raises(UserError, match=r"tiny has 12 positions, and a response takes 1. with its prompt 'Well"):
        features_of(max_position_embeddings=12)(PROMPTS[:1], RESPONSES, Silent())


def test_the_first_language_model_gives_the_features_and_is_not_opened_twice(tiny_model_dir: str) -> None:
    def echo(prompts: list[Any]) -> list[str]:
        return list(prompts)

    writers = open_models([echo, tiny_model_dir])
    assert read_features(None, writers) is read_features(tiny_model_dir, writers) is writers[1]
    assert read_features(tiny_model_dir, []).name == tiny_model_dir
    with pytest.raises(UserError, match="there is no ensemble to choose by; give `reward`, or a language model"):
        read_features(None, writers[:1])
    with pytest.raises(UserError, match="features is a function"):
        read_features(echo, writers)
    with pytest.raises(UserError, match="features has 3"):
        read_features(3, writers)


def test_a_reward_model_is_refused(tiny_model_dir: str, tmp_path: Path) -> None:
    RewardModel.from_backbone(tiny_model_dir).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"features: .* is a reward model"):
        read_features(str(tmp_path), [])
