"""Every evaluation gives a model the token ids that it was trained on."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from hf_align.collators import encode_prompts, tokenize_preferences, tokenize_prompts
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.scorable import Reader, layout_of
from hf_align.collators.truncation import Limits
from hf_align.evaluation import sample_continuations
from hf_align.models.policy import PolicyModel
from hf_align.models.scoring import encode_texts
from hf_align.rollouts.sampler import Sampler
from tests.tiny import CHAT, tiny_model, tiny_tokenizer

END = 256  # <|endoftext|>


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}]
ASKED = [said("user", "Name a gem.")]
ROWS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "The film was", "chosen": " a joy.", "rejected": " dull."},
    "one turn": {"prompt": ASKED, "chosen": [said("assistant", "Opal.")], "rejected": [said("assistant", "Oak.")]},
    "several turns": {
        "prompt": [said("system", "Be brief."), *ASKED, said("assistant", "Opal."), said("user", "Another?")],
        "chosen": [said("assistant", "Jade.")],
        "rejected": [said("assistant", "Again opal.")],
    },
    "prefilled": {
        "prompt": [*ASKED, said("assistant", "A gem is")],
        "chosen": [said("assistant", " opal.")],
        "rejected": [said("assistant", " oak.")],
    },
    "tools": {
        "prompt": ASKED,
        "chosen": [said("assistant", "Opal.")],
        "rejected": [said("assistant", "Oak.")],
        "tools": TOOLS,
    },
}


def appending(chat_template: str) -> PreTrainedTokenizerBase:
    """A tokenizer that puts <|endoftext|> before and behind each text, as some of encoders and T5's kin do."""
    tokenizer: Any = tiny_tokenizer(bos_token="<|endoftext|>")
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", END)]
    )
    tokenizer.chat_template = chat_template
    return tokenizer


TOOLS_FIRST = "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}" + CHAT


@pytest.mark.parametrize("name", ROWS)
def test_prompts_and_responses_have_the_ids_of_training(name: str) -> None:
    row, tokenizer = ROWS[name], appending(TOOLS_FIRST)
    options = {key: row[key] for key in ("tools",) if key in row}
    trained = tokenize_preferences([row], tokenizer)[0]
    prompt, responses = trained["prompt_ids"], trained["response_ids"]
    assert END not in prompt[1:] and all(END not in ids for ids in responses)
    assert (tokenizer.decode(prompt).count("tools") == 1) == ("tools" in row)
    if name == "prefilled":
        assert str(tokenizer.decode(prompt)).endswith("<|im_start|>assistant\nA gem is")

    asked = (tokenizer, [row["prompt"]])
    assert encode_prompts(*asked, rows=[options]) == [prompt]
    assert tokenize_prompts([row], tokenizer)["prompt_ids"][:] == [prompt]
    model = tiny_model()
    assert Sampler(model, tokenizer).encode([row["prompt"]], [options]) == [prompt]
    seen: list[list[int]] = []

    def engine(model: Any, request: Any) -> list[list[int]]:
        seen.extend(request.prompt_ids)
        return [[request.end_ids[0]]]

    sample_continuations(model, *asked, rows=[options], engine=engine)
    assert seen == [prompt]

    sides = [row["chosen"], row["rejected"]]
    scored = encode_texts(PolicyModel(model), tokenizer, [row["prompt"]] * 2, sides, rows=[options] * 2)
    assert scored == [(prompt, ids) for ids in responses]
    reader = Reader(layout_of(list(row)), PairEncoder(tokenizer), Limits(None))
    record = reader.read(row)
    assert record["prompt_ids"] == [prompt] * 2 and record["response_ids"] == responses
