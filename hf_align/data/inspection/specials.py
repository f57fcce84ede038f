"""Special tokens written out in texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hf_align.collators.encoding import special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BOS_TOKENS = ("<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>")
"""What well-known tokenizers begin a text with."""
END_TOKENS = (
    *("<|im_end|>", "</s>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<end_of_turn>", "<eos>"),
    *("<|END_OF_TURN_TOKEN|>", "<|return|>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
)
"""What well-known tokenizers end a turn or a text with."""
_KNOWN = r"<\|[A-Za-z_0-9]+\|>|\[/?INST\]|<</?SYS>>|<(?:bos|eos|pad|unk|mask|start_of_turn|end_of_turn)>"


class Specials:
    """The special tokens to look for.

    Args:
        tokenizer: The one to train with. Default: those of well-known tokenizers, without what HTML has, too.

    Attributes:
        bos: Tokens that begin a text twice if it begins with them: those that the tokenizer or its chat template adds.
        ends: Tokens that end a turn or a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        self.bos, self.ends = BOS_TOKENS, END_TOKENS
        own: list[str] = []
        if tokenizer is not None:
            bos = str(tokenizer.bos_token) if tokenizer.bos_token is not None else ""
            self.bos = (bos,) if bos and _adds(tokenizer, bos) else ()
            eos = (str(tokenizer.eos_token),) if tokenizer.eos_token is not None else ()
            self.ends = tuple(dict.fromkeys((*eos, *END_TOKENS)))
            own = sorted(special_tokens(tokenizer).values(), key=len, reverse=True)
        self._known = re.compile("|".join([*map(re.escape, own), _KNOWN]))
        self._first = {"<", "[", *(token[0] for token in own)}

    def begins_twice(self, text: str) -> bool:
        """Whether a text begins with a token that is added to it anyway."""
        return text.startswith(self.bos)

    def without_bos(self, text: str) -> str:
        """The text without such tokens at its start."""
        while token := next((token for token in self.bos if text.startswith(token)), ""):
            text = text.removeprefix(token)
        return text

    def ends_turn(self, text: str) -> bool:
        """Whether a text ends with a token that ends a turn."""
        return text.rstrip().endswith(self.ends)

    def without_end(self, text: str) -> str:
        """The text without such tokens at its end."""
        text = text.rstrip()
        while token := next((token for token in self.ends if text.endswith(token)), ""):
            text = text.removesuffix(token).rstrip()
        return text

    def inside(self, text: str) -> bool:
        """Whether a text has a special token elsewhere than at its start (BOS) or end (of turn)."""
        if not any(first in text for first in self._first):
            return False
        return self._known.search(self.without_end(self.without_bos(text))) is not None


def _adds(tokenizer: PreTrainedTokenizerBase, bos: str) -> bool:
    """Whether the tokenizer or its chat template begins a text with BOS."""
    ids: list[int] = tokenizer("a")["input_ids"]
    template = tokenizer.chat_template or ""
    return ids[:1] == [tokenizer.bos_token_id] or "bos_token" in str(template) or bos in str(template)
