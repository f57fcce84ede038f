import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_align.errors import UserError
from hf_align.evaluation.policies import (
    Continuation,
    compare_policies,
    distinct_n,
    measure_policies,
    sample_continuations,
)
from hf_align.rollouts import SamplingRequest


def test_distinct_2_by_hand() -> None:
    # a b, b c | A b, b d: three different ones of four.
    assert distinct_n(["a b c", "A b d"]) == pytest.approx(3 / 4)
    assert distinct_n(["one", ""]) != distinct_n(["one", ""])  # NaN: there is no bigram


def test_compare_policies_by_hand() -> None:
    def written(texts: list[str]) -> list[Continuation]:
        return [Continuation(text, len(text.split()), text.endswith(".")) for text in texts]

    report = compare_policies(
        {"base": written(["x y", "x z.", "w"]), "dpo": written(["x y.", "p q.", "w v u."])},
        {"base": [0.0, 0.5, -1.0], "dpo": [0.5, 1.0, 0.0]},
        ["a", "a", "b"],
    )
    base, dpo = report["all"]["policies"]["base"], report["all"]["policies"]["dpo"]
    assert base["score"] == pytest.approx(-1 / 6)
    assert dpo["gain"] == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert dpo["gain_interval"] == pytest.approx([0.5, 1.0])
    assert (base["ended"], dpo["ended"]) == (pytest.approx(1 / 3), 1.0)
    assert dpo["mean_tokens"] == pytest.approx(7 / 3)
    assert base["distinct_2"] == 1.0
    assert "gain" not in base
    assert report["a"]["prompts"] == 2
    assert report["a"]["policies"]["dpo"]["gain_interval"] == pytest.approx([0.5, 0.5])


def test_rewards_are_compared_in_standard_deviations_of_the_first_policy() -> None:
    samples = {name: [Continuation("x", 1, True)] * 4 for name in ("base", "ppo")}
    flat = {name: [0.0] * 4 for name in samples}
    rewards = {"base": [-1.0, 1.0, -1.0, 1.0], "ppo": [2.0, 2.0, 0.0, 0.0]}
    report = compare_policies(samples, flat, ["a"] * 4, rewards=rewards, resamples=50)["all"]["policies"]
    assert (report["base"]["reward"], report["base"]["reward_sd"]) == (0.0, 1.0)
    assert report["ppo"]["reward_gain"] == report["ppo"]["reward_gain_sds"] == 1.0
    low, high = report["ppo"]["reward_gain_interval"]
    assert -1 <= low <= 1 <= high <= 3


def test_what_cannot_be_sampled_is_refused_before_a_weight_is_loaded(tiny_model_dir: str) -> None:
    rows = Dataset.from_list([{"prompt": "Say hi."}])
    with pytest.raises(UserError, match=r"^model names the same policy twice"):
        measure_policies([tiny_model_dir] * 2, rows)
    with pytest.raises(UserError, match=r"^max_new_tokens is 2048"):
        measure_policies([tiny_model_dir], rows, max_new_tokens=2048)
    with pytest.raises(UserError, match=r"^batch_size is 0"):
        measure_policies([tiny_model_dir], rows, batch_size=0)


def test_compare_policies_refuses_missing_rows() -> None:
    sample = Continuation("x", 1, True)
    with pytest.raises(UserError, match="'dpo'"):
        compare_policies({"base": [sample], "dpo": []}, {"base": [0.0], "dpo": []}, ["a"])


@pytest.fixture(scope="module")
def tiny(tiny_model_dir: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir), AutoTokenizer.from_pretrained(tiny_model_dir)


def test_samples_keep_the_prompts_order_and_the_seed(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    prompts = ["a much longer prompt than the other ones", [{"role": "user", "content": "Hi"}], "b"]
    finished: list[int] = []
    first = sample_continuations(model, tokenizer, prompts, max_new_tokens=4, batch_size=2, progress=finished.append)
    assert finished == [2, 3]
    assert all(sample.tokens <= 4 for sample in first)
    assert first == sample_continuations(model, tokenizer, prompts, max_new_tokens=4, batch_size=2)
    assert first != sample_continuations(model, tokenizer, prompts, max_new_tokens=4, batch_size=2, seed=1)


def test_a_prefilled_answer_is_continued_not_followed_by_another_turn(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    seen: list[str] = []

    def engine(model: Any, request: SamplingRequest) -> list[list[int]]:
        seen.extend(tokenizer.decode(ids) for ids in request.prompt_ids)
        return [[tokenizer.eos_token_id]]

    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well,"}]
    sample_continuations(model, tokenizer, [turns], max_new_tokens=2, engine=engine)
    assert seen[0].endswith("assistant\nWell,")


def test_the_whole_distribution_is_sampled_and_the_end_is_no_token_of_the_text(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    space, letter = tokenizer(" a", add_special_tokens=False)["input_ids"]

    def engine(model: Any, request: SamplingRequest) -> list[list[int]]:
        assert (request.top_p, request.temperature, request.num_samples) == (1.0, 1.0, 1)
        return [[letter, tokenizer.eos_token_id], [space, letter]]

    samples = sample_continuations(model, tokenizer, ["b", "c"], max_new_tokens=2, engine=engine)
    assert samples == [Continuation("a", 1, True), Continuation("a", 2, False)]


def test_policies_get_the_prompts_of_training_and_columns_keep_their_names(tiny_model_dir: str, tmp_path: Path) -> None:
    seen: list[str] = []

    def engine(model: Any, request: SamplingRequest) -> list[list[int]]:
        seen.extend(str(request.tokenizer.decode(list(ids))) for ids in request.prompt_ids)
        return [[258] for _ in request.prompt_of]

    policy = str(tmp_path / "policy")
    shutil.copytree(tiny_model_dir, policy)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = "{{ tools[0].name }} {{ mood }} " + str(tokenizer.chat_template)
    tokenizer.save_pretrained(policy)
    row = {"tools": [{"name": "clock"}], "chat_template_kwargs": {"mood": "calm"}}
    rows = Dataset.from_list([row | {"prompt": [{"role": "user", "content": text}]} for text in ("Hi", "Ho")])
    judge = lambda prompts, responses: [1.0] * len(responses)  # noqa: E731
    measure_policies([policy], rows, judge, max_new_tokens=2, resamples=10, engine=engine)
    assert len(seen) == 2 and all(text.startswith("clock calm <|im_start|>user\nH") for text in seen)
    for name in ("prompt_ids", "response_ids", "finished"):
        with pytest.raises(UserError, match=f"data has a column {name}, which the trainer adds; rename or remove"):
            measure_policies([policy], rows.add_column(name, [[1]] * 2), judge)  # type: ignore[arg-type]
