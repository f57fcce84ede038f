"""Responses come from the distribution that log-probs refer to, end where they end, and leave the model as it was."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn
from transformers import GenerationConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from hf_align.errors import UserError
from hf_align.layout.branches import build_branches
from hf_align.models.loading import load_policy
from hf_align.models.policy import PolicyModel
from hf_align.models.value import PolicyWithValueHead
from hf_align.rollouts import SamplingRequest, sample_responses, stop_token_ids, warn_of_open_turns
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer

PROMPTS = [[1, 2, 3, 4, 5], [70], [9, 8]]
LEAKS = {"top_k": 1, "top_p": 0.1, "temperature": 0.01, "repetition_penalty": 5.0, "min_length": 50, "do_sample": False}


def with_bias(token: int, strength: float = 100.0, **settings: Any) -> LlamaForCausalLM:
    """A model that (nearly) always says `token`."""
    model = tiny_model(tie_word_embeddings=False, **settings)
    head = nn.Linear(32, 260)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.bias[token] = strength
    model.lm_head = head
    return model


def test_sampling_is_what_the_scored_log_probs_say():
    model, temperature = tiny_model(), 0.7
    model.generation_config = GenerationConfig(**LEAKS, bad_words_ids=[[3], [4]], eos_token_id=[258])
    seen: list[torch.Tensor] = []
    model.register_forward_hook(lambda *call: seen.append(call[-1].logits[:, -1]))
    samples = sample_responses(model, tiny_tokenizer(), PROMPTS, max_new_tokens=6, temperature=temperature)
    logits = torch.stack(seen, 1)
    documents = [(prompt, [sample.token_ids]) for prompt, sample in zip(PROMPTS, samples, strict=True)]
    branches = build_branches(documents, pad_token_id=0)
    with torch.no_grad():
        scored = PolicyWithValueHead(model)(branches, temperature=temperature)["logps"]
    own = torch.cat(
        [
            (logits[row, : len(sample.token_ids)] / temperature)
            .log_softmax(-1)
            .gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
            for row, sample in enumerate(samples)
        ]
    )
    assert {len(sample.token_ids) for sample in samples} == {6}
    torch.testing.assert_close(scored, own, atol=1e-4, rtol=0)


def test_samples_have_the_frequencies_of_the_tempered_distribution():
    model = with_bias(5, strength=0.0)
    with torch.no_grad():
        model.lm_head.bias.fill_(-torch.inf)
        model.lm_head.bias[:4] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    model.generation_config.update(**{**LEAKS, "do_sample": True})
    samples = sample_responses(
        model, tiny_tokenizer(), [[1]], num_samples=4000, max_new_tokens=1, temperature=2.0, generator_seed=0
    )
    counts = torch.bincount(torch.tensor([sample.token_ids[0] for sample in samples]), minlength=4) / 4000
    expected = torch.tensor([0.0, 0.5, 1.0, 1.5]).softmax(0)
    assert (counts - expected).abs().max() < 0.03  # four standard errors


def test_a_prompt_in_a_padded_batch_gets_the_tokens_it_gets_alone():
    model, tokenizer = tiny_model(), tiny_tokenizer(pad_token="<|im_end|>")
    together = sample_responses(model, tokenizer, PROMPTS, max_new_tokens=8, temperature=0)
    apart = [sample_responses(model, tokenizer, [p], max_new_tokens=8, temperature=0)[0] for p in PROMPTS]
    assert [r.token_ids for r in together] == [r.token_ids for r in apart]
    in_parts = sample_responses(model, tokenizer, PROMPTS, num_samples=2, max_new_tokens=8, temperature=0, batch_size=4)
    assert [r.token_ids for r in in_parts] == [r.token_ids for r in together for _ in range(2)]
    assert [r.prompt_index for r in in_parts] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("pad", ["<|im_end|>", "<pad>", None])
@pytest.mark.parametrize("end", [258, 256])
def test_an_end_token_finishes_a_response_and_is_part_of_it(pad: str | None, end: int):
    tokenizer = tiny_tokenizer(pad_token=pad)
    model = with_bias(end, strength=5.0)
    model.generation_config.eos_token_id = [256, 258]
    assert stop_token_ids(model, tokenizer) == [256, 258]
    samples = sample_responses(model, tokenizer, [[1], [2, 3]], num_samples=50, max_new_tokens=3, generator_seed=1)
    assert {len(sample.token_ids) for sample in samples} == {1, 2, 3}
    for sample in samples:
        assert sample.finished == (sample.token_ids[-1] in (256, 258))
        assert not {256, 258} & set(sample.token_ids[:-1])
        assert sample.text == tokenizer.decode([token for token in sample.token_ids if token < 256])
    assert {sample.finished for sample in samples if len(sample.token_ids) == 3} == {True, False}


def test_padding_tokens_that_are_sampled_are_tokens():
    tokenizer = tiny_tokenizer()
    sample = sample_responses(with_bias(259), tokenizer, [[1]], max_new_tokens=4)[0]
    assert sample.token_ids == [259] * 4 and not sample.finished and sample.text == ""


def test_a_stop_string_ends_a_response_behind_it():
    tokenizer = tiny_tokenizer()
    # After token t comes t + 1: the text runs through the alphabet.
    model = tiny_model(hidden_size=64, tie_word_embeddings=False)
    text = "abcdefghij"
    steps = dict(zip(tokenizer(text).input_ids, tokenizer(text[1:]).input_ids, strict=False))
    model.model.embed_tokens.weight.data.zero_()
    model.lm_head.weight.data.zero_()
    for name, parameter in model.named_parameters():
        if "down_proj" in name or "o_proj" in name:
            parameter.data.zero_()
    for column, (token, following) in enumerate(steps.items()):
        model.model.embed_tokens.weight.data[token, column] = 1.0
        model.lm_head.weight.data[following, column] = 100.0
    prompts = tokenizer(["a", "ab", "xxabcde"]).input_ids
    samples = sample_responses(model, tokenizer, prompts, max_new_tokens=6, stop_strings=["zz", "def"], temperature=0)
    assert [sample.text for sample in samples] == ["bcdef", "cdef", "fghij" + samples[2].text[5:]]
    assert [sample.finished for sample in samples] == [True, True, False], "a stop string in the prompt doesn't count"
    assert [len(sample.token_ids) for sample in samples] == [5, 4, 6]


def test_stop_strings_are_matched_on_text_without_special_tokens():
    tokenizer = tiny_tokenizer()
    a, b = tokenizer("ab").input_ids
    sampled: dict[str, list[int]] = {"named": [259] * 4, "apart": [a, *[257] * 40, b, a], "none": [a, 257, a, a]}

    def responses(*stop_strings: str) -> list[Any]:
        return sample_responses(
            tiny_model(),
            tokenizer,
            [[1]] * len(sampled),
            max_new_tokens=50,
            stop_strings=stop_strings,
            engine=lambda model, request: list(sampled.values()),
        )

    named, apart, none = responses("pad", "ab")
    assert (named.finished, apart.finished, none.finished) == (False, True, False)
    assert (named.text, apart.text, len(apart.token_ids)) == ("", "ab", 42)
    # The name of a special token alone means that token.
    named, apart, none = responses("<pad>", "b")
    assert [len(each.token_ids) for each in (named, apart, none)] == [1, 42, 4]
    assert named.finished and named.text == ""


def test_a_warning_names_the_end_of_turn_that_ends_no_response(caplog: pytest.LogCaptureFixture):
    tokenizer, model = tiny_tokenizer(eos_token="<|endoftext|>"), tiny_model()  # turns end with <|im_end|>

    def warnings(*stop_strings: str) -> list[str]:
        caplog.clear()
        warn_of_open_turns(model, tokenizer, stop_strings)
        return [record.getMessage() for record in caplog.records]

    with caplog.at_level("WARNING", logger="hf_align"):
        model.generation_config.eos_token_id = 256
        (message,) = warnings()
        assert (
            "ends a turn with '<|im_end|>' (token 258), which is not a stop token of the model (<|endoftext|>"
            in message
        )
        assert warnings("<|im_end|>") == []
        model.generation_config.eos_token_id = [256, 258]
        assert warnings() == []


def test_the_same_seed_gives_the_same_responses():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    draw = functools.partial(sample_responses, model, tokenizer, PROMPTS, max_new_tokens=5)
    torch.manual_seed(3)
    first, second = draw(), draw()
    torch.manual_seed(3)
    assert draw() == first != second
    state = torch.get_rng_state()
    assert draw(generator_seed=3) == first
    assert torch.equal(torch.get_rng_state(), state)


def test_the_model_comes_out_as_it_went_in():
    model, tokenizer = tiny_model().train(), tiny_tokenizer()
    model.activation_checkpointing_enable()
    model.config.use_cache = False
    model.model.layers[0].eval()
    config, modes = model.generation_config, [module.training for module in model.modules()]
    seen: list[bool] = []
    hook = model.model.layers[1].register_forward_hook(
        lambda module, args, kwargs, output: seen.append(kwargs["past_key_values"] is not None and not module.training),
        with_kwargs=True,
    )
    sample_responses(model, tokenizer, PROMPTS, max_new_tokens=3)
    hook.remove()
    assert seen == [True] * len(seen) and seen, "with a cache, and nothing checkpointed"
    assert model.generation_config is config and model.config.use_cache is False
    assert [module.training for module in model.modules()] == modes
    assert all(layer.gradient_checkpointing for layer in model.model.layers)


@pytest.mark.parametrize("quantization", ["8bit", "4bit", None])
def test_gradients_after_generating_are_those_before(quantization: Any, tmp_path: Any):
    folder = save_tiny(tmp_path, hidden_size=64, intermediate_size=128)
    torch.manual_seed(0)
    lora = LoraConfig(target_modules="all-linear", init_lora_weights=False)
    policy = load_policy(folder, quantization=quantization, lora=lora)
    model = PolicyWithValueHead(policy, value_model="adapter").train()
    branches = build_branches([([1, 2, 3], [[4, 5], [6]])], pad_token_id=0)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        result = model(branches)
        (result["logps"].sum() + result["values"].square().sum()).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    nn.init.normal_(model.value_parameters()[0])
    before = gradients()
    assert any(".default." in name and g.any() for name, g in before.items())
    assert any(".value." in name and g.any() for name, g in before.items())
    for wrapper in (model, PolicyModel(policy), policy):
        assert len(sample_responses(wrapper, tiny_tokenizer(), PROMPTS, max_new_tokens=3)) == 3
    after = gradients()
    assert before.keys() == after.keys()
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


def test_the_active_adapter_samples(tmp_path: Any):
    policy = load_policy(save_tiny(tmp_path), lora=LoraConfig(target_modules="all-linear", init_lora_weights=False))
    draw = functools.partial(sample_responses, tokenizer=tiny_tokenizer(), max_new_tokens=12, temperature=0)
    with_adapter = draw(policy, prompt_ids=PROMPTS)
    base = draw(load_policy(str(tmp_path)), prompt_ids=PROMPTS)
    merged = draw(policy.merge_and_unload(), prompt_ids=PROMPTS)  # type: ignore[operator]
    assert with_adapter == merged != base


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"stop_strings": "ab"}, "stop_strings"),
        ({"stop_strings": [""]}, "stop_strings"),
        ({"prompt_ids": [[1], []]}, "Prompt 1 is empty"),
        ({"engine": "fast"}, "engine is 'fast'; use 'static', 'continuous'"),
        ({"engine": lambda model, request: [[1], [2]]}, "must return 1 responses"),
        ({"engine": lambda model, request: [[]]}, "at least one token"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str):
    arguments: dict[str, Any] = {"prompt_ids": [[1]], "max_new_tokens": 2, **options}
    with pytest.raises(UserError, match=message):
        sample_responses(tiny_model(), tiny_tokenizer(), **arguments)


def test_an_encoder_decoder_is_refused():
    config = T5Config(vocab_size=260, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(UserError, match="T5ForConditionalGeneration is an encoder-decoder"):
        sample_responses(T5ForConditionalGeneration(config), tiny_tokenizer(), [[1]], max_new_tokens=2)


def test_no_prompts_no_responses():
    assert sample_responses(tiny_model(), tiny_tokenizer(), [], max_new_tokens=2) == []


def test_an_engine_of_ones_own_is_asked_and_its_answer_is_cut(tmp_path: Any):
    tokenizer = tiny_tokenizer()
    policy = load_policy(save_tiny(tmp_path), lora=LoraConfig(target_modules="all-linear")).train()
    requests: list[SamplingRequest] = []

    def engine(model: nn.Module, request: SamplingRequest) -> list[list[int]]:
        assert model is policy and not model.training and not torch.is_grad_enabled()
        requests.append(request)
        one = [*tokenizer("ab.cd").input_ids]
        return [one, [7, 258, 9], one[:2] * 9, [259]]

    samples = sample_responses(
        PolicyWithValueHead(policy),
        tokenizer,
        [[1], [2, 3]],
        num_samples=2,
        max_new_tokens=4,
        temperature=0.5,
        stop_strings=[".c", "."],
        engine=engine,
    )
    assert [sample.text for sample in samples] == ["ab.", tokenizer.decode([7]), "abab", ""]
    assert [sample.finished for sample in samples] == [True, True, False, False]
    assert [len(sample.token_ids) for sample in samples] == [3, 2, 4, 1]
    assert [sample.prompt_index for sample in samples] == [0, 0, 1, 1]
    (request,) = requests
    assert (request.num_samples, request.temperature, request.prompt_ids) == (2, 0.5, [[1], [2, 3]])
    assert policy.training
