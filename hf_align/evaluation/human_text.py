"""Text by people, on which a policy shows what it has unlearned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.collators.encoding import Ids, PairEncoder
from hf_align.data.embedded.ratings import load_ratings
from hf_align.errors import UserError
from hf_align.models.decoders import positions_of
from hf_align.models.sources import load_config, load_tokenizer
from hf_align.statistics import Resampling

COUNT = 200
"""Texts measured by default."""
MOST_CHARACTERS = 2000
"""Of a text; the rest of a longer one isn't read."""
EMBEDDED = "test sentences of the embedded ratings"


@dataclass(frozen=True)
class HumanText:
    """Texts by people.

    Attributes:
        texts: The texts, cut to `MOST_CHARACTERS`.
        source: Where they are from.
        cut: How many were longer.
        encoded: By policy, the token ids of each text: with the BOS that its tokenizer puts first, without an end.
    """

    texts: list[str]
    source: str = ""
    cut: int = 0
    encoded: Mapping[str, list[Ids]] = field(default_factory=dict)

    def encode(self, names: Sequence[str]) -> HumanText:
        """The same texts encoded for these policies; those of a single token, which nothing predicts, are left out.

        Raises:
            UserError: A policy has too few positions for one.
        """
        encoded: dict[str, list[Ids]] = {}
        for name in names if self.texts else ():
            encoder, positions = PairEncoder(load_tokenizer(name)), positions_of(load_config(name))
            encoded[name] = [[*encoder.start, *ids] for ids in encoder.encode(self.texts)]
            longest = max(map(len, encoded[name]))
            if positions is not None and longest > positions:
                raise UserError(
                    f"human_text: a text takes {longest} tokens and {name} has {positions} positions; shorten it."
                )
        long = [n for n in range(len(self.texts)) if all(len(ids[n]) > 1 for ids in encoded.values())]
        return replace(
            self,
            texts=[self.texts[n] for n in long],
            encoded={name: [ids[n] for n in long] for name, ids in encoded.items()} or {name: [] for name in names},
        )


def read_human_text(human_text: Any, count: int, seed: int) -> HumanText:
    """A sample of texts by people.

    Args:
        human_text: Texts, or None for the test sentences of the embedded ratings, which no default training sees.
        count: Most texts; 0 for none.
        seed: Seed of the sample.

    Raises:
        UserError: It isn't a list of texts, or one is empty.
    """
    if isinstance(human_text, str) or (human_text is not None and not isinstance(human_text, Sequence)):
        raise UserError(f"human_text is a {type(human_text).__name__}; give a list of texts.")
    texts = load_ratings("test")["text"][:] if human_text is None else list(human_text)
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"human_text: entry {number} is no text; fix or drop it.")
    drawn = sorted(np.random.default_rng(seed).permutation(len(texts))[:count].tolist())
    chosen = [texts[number] for number in drawn]
    source = EMBEDDED if human_text is None else "given texts"
    cut = sum(len(text) > MOST_CHARACTERS for text in chosen)
    return HumanText([text[:MOST_CHARACTERS] for text in chosen], source, cut)


def measure_lost_ability(
    text: HumanText, logps: Mapping[str, Sequence[NDArray[np.float64]]], reference: str, *, resamples: int, seed: int
) -> dict[str, Any] | None:
    """Negative log-likelihood of the texts under each policy, in nats, and its increase over the reference.

    As transformers' loss of a language model: every token but the first, each counting alike. The increase is paired by
    text, and per token where policy and reference read the same tokens, otherwise per byte of text (UTF-8).

    Args:
        text: The texts, encoded.
        logps: By policy, for each text the log-probs of its tokens after the first.
        reference: Name of the reference.
        resamples: Bootstrap resamples.
        seed: Seed of the draws.

    Returns:
        "texts", "source", "cut", and "policies": by name "tokens", "nll" (per token), "nll_interval", "per_byte", and,
        after the reference, "increase", "increase_interval" and "unit" ("token" or "byte"). None without texts.
    """
    if not text.texts:
        return None
    resampling = Resampling(len(text.texts), resamples=resamples, seed=seed)
    unit = np.arange(len(text.texts))
    size = np.asarray([len(each.encode()) for each in text.texts], dtype=float)
    losses = {name: np.asarray([-each.sum() for each in parts]) for name, parts in logps.items()}
    policies: dict[str, dict[str, Any]] = {}
    for name, loss in losses.items():
        tokens = np.asarray([len(each) for each in logps[name]], dtype=float)
        nll, interval = resampling.ratio(loss, tokens, unit)
        entry = {"tokens": int(tokens.sum()), "nll": nll, "nll_interval": interval}
        entry["per_byte"] = float(loss.sum() / size.sum())
        if name != reference:
            same = text.encoded[name] == text.encoded[reference]
            increase, interval = resampling.ratio(loss - losses[reference], tokens if same else size, unit)
            entry |= {"increase": increase, "increase_interval": interval, "unit": "token" if same else "byte"}
        policies[name] = entry
    return {"texts": len(text.texts), "source": text.source, "cut": text.cut, "policies": policies}
