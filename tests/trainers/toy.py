"""A language of five tokens whose responses can all be listed: a model, its tokenizer and exact solutions."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hf_align.rl.toy_mdp import LanguageMDP, Response, State

WORDS = ("<eos>", "a", "b", "c", "d")
EOS, PROMPT = 0, (1,)


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """Words between spaces; pad is EOS."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def toy_model(seed: int = 0, **settings: Any) -> LlamaForCausalLM:
    """A random Llama over `WORDS`."""
    torch.manual_seed(seed)
    defaults: dict[str, Any] = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
    }
    return LlamaForCausalLM(LlamaConfig(**{**defaults, **settings}))


def prompts(count: int) -> Dataset:
    """The one prompt, `count` times."""
    return Dataset.from_list([{"prompt": "a"}] * count)


def varied_prompts(count: int) -> Dataset:
    """Prompts of one to four words."""
    return Dataset.from_list([{"prompt": " ".join("abcd"[: number % 4 + 1])} for number in range(count)])


def text_of(response: Response) -> str:
    """The text of a response that a reward function gets."""
    return " ".join(WORDS[token] for token in response if token != EOS)


def reward_of(response: Response) -> float:
    """A reward with preferences for words, places and an end."""
    return 1.0 * response.count(2) - 0.5 * response.count(3) + (0.7 if response[-1] == EOS else 0.0)


def toy_mdp(max_length: int) -> LanguageMDP:
    """Generation of at most `max_length` words with `reward_of`."""
    return LanguageMDP(len(WORDS), EOS, max_length, reward_of, PROMPT)


def toy_reward(max_length: int) -> Any:
    """`reward_of` as a reward function of texts."""
    table = {text_of(response): reward_of(response) for response in toy_mdp(max_length).responses}
    return lambda prompts, responses, **columns: [table[response] for response in responses]


def policy_of(model: Any) -> Any:
    """The model as a policy of the MDP."""

    @torch.no_grad()
    def logits(state: State) -> Tensor:
        return model(input_ids=torch.tensor([state])).logits[0, -1].double()

    return logits
