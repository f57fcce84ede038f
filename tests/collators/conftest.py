"""SmolLM2's tokenizer, and small ones built here with features of others."""

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

CORPUS = ["Hello world, how are you?", "The sky is blue.", "The sky is bluish and the sea is green.", "un unhappy do"]
SPECIALS = ["<unk>", "<s>", "</s>", "<|end|>", "<|call|>"]


@pytest.fixture(scope="session")
def tokenizer(base_dir: str) -> PreTrainedTokenizerBase:
    """SmolLM2's: byte-level BPE, ChatML template, adds neither BOS nor EOS; pad = EOS = <|im_end|>."""
    return AutoTokenizer.from_pretrained(base_dir)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerBase]:
    """A SentencePiece-like tokenizer (a space before the first word) that adds what `post` says, e.g. "<s> $A"."""

    def make(post: str = "<s> $A", chat_template: str | None = None) -> PreTrainedTokenizerBase:
        inner = Tokenizer(models.BPE(unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        inner.decoder = decoders.Metaspace(prepend_scheme="first")
        alphabet = [chr(code) for code in range(32, 127)] + ["\n"]
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIALS, initial_alphabet=alphabet)
        inner.train_from_iterator(CORPUS, trainer)
        ids = [(token, SPECIALS.index(token)) for token in ("<s>", "</s>")]
        inner.post_processor = processors.TemplateProcessing(single=post, special_tokens=ids)
        made = PreTrainedTokenizerFast(
            tokenizer_object=inner,
            **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
            extra_special_tokens=["<|end|>", "<|call|>"],
        )
        made.chat_template = chat_template
        return made

    return make


@pytest.fixture(scope="session")
def bos_tokenizer(make_tokenizer: Callable[..., PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    """Llama-like: adds <s> at the start; no chat template, no pad token."""
    return make_tokenizer()
