"""Responses of a round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from hf_align.collators.rows import Side, text_of
from hf_align.data.parts import Parts
from hf_align.feedback import Prompt
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.pairs import make_pairs
from hf_align.feedback.collection.responses import generate_responses, plan
from hf_align.feedback.collection.writers import open_models

PROMPTS = [Prompt(f"Prompt {number}") for number in range(6)]
WORDS = ("apple", "banana", "cherry", "dates", "elderberry", "fig", "grape", "hazelnut")
Function = Callable[[list[Side]], list[str]]


def saying(*texts: str) -> Function:
    """A function that says these in turn, and the last one for ever."""
    number = count()
    return lambda prompts: [texts[min(next(number), len(texts) - 1)] for _ in prompts]


def slots(config: CollectionConfig, models: int, attempt: int = 0, have: int = 0) -> list[tuple[int, float]]:
    names = {f"m{number}": saying("a") for number in range(models)}
    return plan(PROMPTS[0], open_models(names), config, attempt, have)


def test_the_first_model_takes_the_temperatures_in_turn_and_the_others_the_middle_one() -> None:
    assert slots(CollectionConfig(), 2) == [(0, 0.7), (1, 0.9), (0, 0.9), (0, 1.1)]
    assert slots(CollectionConfig(), 1) == [(0, 0.7), (0, 0.9), (0, 1.1), (0, 1.1)]
    six = CollectionConfig(responses_per_prompt=6)
    assert slots(six, 2) == [(0, 0.7), (1, 0.9), (0, 0.9), (0, 1.1), (0, 1.1), (1, 1.1)]


def test_other_models_are_drawn_for_each_prompt() -> None:
    writers = open_models({f"m{number}": saying("a") for number in range(4)})
    config = CollectionConfig()
    chosen = [{number for number, _ in plan(Prompt(f"{n}"), writers, config, 0, 0)} for n in range(300)]
    assert all(len(each) == 2 and 0 in each for each in chosen)
    others = Counter(number for each in chosen for number in each if number)
    assert set(others) == {1, 2, 3} and min(others.values()) > 70  # 100 each, six standard deviations are 49


def test_missing_responses_are_sampled_at_higher_temperatures() -> None:
    assert slots(CollectionConfig(), 2, attempt=1, have=2) == [(0, 1.3), (1, 1.3)]
    assert slots(CollectionConfig(), 2, attempt=2, have=2) == [(0, 1.5), (1, 1.5)]


def test_empty_responses_and_near_duplicates_are_dropped_and_counted() -> None:
    models = {"a": saying("apple", "Apple!", " \u200b"), "b": saying("banana")}
    config = CollectionConfig(min_responses=2)
    made = generate_responses(PROMPTS[:1], open_models(models), config)
    assert [(each.source, each.content) for each in made.responses[PROMPTS[0].id]] == [("a", "apple"), ("b", "banana")]
    assert made.counts == {
        **{"sampled": 4, "empty": 1, "near_duplicates": 1, "cut": 0, "sampled_again": 0, "given_up": 0}
    }


def test_prompts_with_too_few_responses_are_sampled_again_and_then_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A model that has one answer to the first prompt, and finds two more after some time.
    slow = saying(*["apple"] * 6, "banana", "cherry")
    made = generate_responses(PROMPTS[:1], open_models({"slow": slow}), CollectionConfig())
    responses = made.responses[PROMPTS[0].id]
    assert [each.content for each in responses] == ["apple", "banana", "cherry"]
    # 4 at first; then the missing 3, of which the third is new; then the missing 2.
    assert [each.settings["attempt"] for each in responses] == [0, 1, 2]
    assert made.counts["sampled"] == 4 + 3 + 2 and made.counts["sampled_again"] == 1
    assert not caplog.messages
    calls, number = Counter[Side](), count()

    def dull(prompts: list[Side]) -> list[str]:
        calls.update(map(str, prompts))
        return ["apple" if prompt == "Prompt 1" else WORDS[next(number) % len(WORDS)] for prompt in prompts]

    made = generate_responses(PROMPTS[:2], open_models({"dull": dull}), CollectionConfig())
    assert made.given_up == [PROMPTS[1].id] and list(made.responses) == [PROMPTS[0].id]
    assert calls == {"Prompt 0": 4, "Prompt 1": 4 + 3 * 3}
    assert caplog.messages == [
        "prompts given up for fewer than 3 different responses: 1 of 2 (further rounds of sampling: 3)."
    ]


def test_policies_respond_in_the_form_of_the_prompt_and_cut_responses_are_marked(tiny_model_dir: str) -> None:
    chat = Prompt([{"role": "user", "content": "Say hi."}])
    config = CollectionConfig(max_new_tokens=6, responses_per_prompt=8, max_pairs=6)
    made = generate_responses([*PROMPTS, chat], open_models(tiny_model_dir), config)
    assert not made.given_up
    everything = [each for responses in made.responses.values() for each in responses]
    cut = [each for each in everything if not each.settings["finished"]]
    assert len(cut) == made.counts["cut"] > 0
    assert {each.settings["temperature"] for each in everything} >= {0.7, 0.9, 1.1}
    assert all(isinstance(each.content, str) for prompt in PROMPTS for each in made.responses[prompt.id])
    for each in made.responses[chat.id]:
        assert each.content == [{"role": "assistant", "content": text_of(each.content)}]
    tasks = make_pairs(chat, made.responses[chat.id], config)
    assert {id for task in tasks for id in (task.first_id, task.second_id)} == {
        each.id for each in made.responses[chat.id]
    }


def test_a_round_that_is_asked_for_again_gives_the_same_and_samples_nothing(
    tiny_model_dir: str, tmp_path: Path
) -> None:
    config = CollectionConfig(max_new_tokens=4)
    models = {"policy": tiny_model_dir, "loud": lambda prompts: [f"{prompt}!" for prompt in prompts]}
    first = generate_responses(PROMPTS, open_models(models), config, parts=Parts(tmp_path))
    stored = len(list(tmp_path.iterdir()))
    again = generate_responses(PROMPTS, open_models(models), config, parts=(parts := Parts(tmp_path)))
    assert again == first and parts.found == stored == len(list(tmp_path.iterdir()))
    assert generate_responses(PROMPTS, open_models(models), config) == first


@pytest.mark.slow
def test_the_real_model_gives_several_different_responses_to_embedded_prompts(base_dir: str, tmp_path: Path) -> None:
    texts = ("The film was", "I ordered this and", "The staff at the hotel", "My first impression of the phone:")
    chat = Prompt([{"role": "user", "content": "Name one good and one bad thing about trains."}])
    prompts = [*map(Prompt, texts), chat]
    config = CollectionConfig(max_new_tokens=24)
    made = generate_responses(prompts, open_models(base_dir), config, parts=Parts(tmp_path))
    assert not made.given_up
    for prompt in prompts:
        responses = made.responses[prompt.id]
        assert 3 <= len(responses) <= 4
        assert len({text_of(each.content).strip().lower() for each in responses}) == len(responses)
        assert all(any(letter.isalpha() for letter in text_of(each.content)) for each in responses)
    assert generate_responses(prompts, open_models(base_dir), config, parts=Parts(tmp_path)) == made
