"""KL of whole responses against enumeration of all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hf_align.evaluation.continuations import sample_continuations
from hf_align.evaluation.divergence import measure_kl
from hf_align.evaluation.writing import token_logps
from hf_align.losses.kl import full_kl
from hf_align.progress import Silent
from hf_align.statistics import Resampling
from tests.tiny import tiny_model, tiny_tokenizer


@torch.no_grad()
def next_logits(model: torch.nn.Module, rows: list[list[int]]) -> Tensor:
    return model(input_ids=torch.tensor(rows)).logits[:, -1].double()


def test_the_estimates_enclose_the_kl_of_all_responses_of_two_tokens() -> None:
    policy, reference, tokenizer = tiny_model(1), tiny_model(1), tiny_tokenizer()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    prompt, ends = [5, 6, 7], 258
    first, other = next_logits(policy, [prompt]), next_logits(reference, [prompt])
    going_on = [token for token in range(260) if token != ends]
    rows = [[*prompt, token] for token in going_on]
    second = full_kl(next_logits(policy, rows), next_logits(reference, rows))
    exact = float(full_kl(first, other) + (first.softmax(-1)[0, going_on] * second).sum())

    count = 600
    text = str(tokenizer.decode(prompt))
    samples = sample_continuations(policy, tokenizer, [text] * count, max_new_tokens=2, batch_size=count)
    encoded = [(prompt, sample.token_ids) for sample in samples]
    logps, reference_logps = (token_logps(model, encoded, tokenizer, Silent(), "") for model in (policy, reference))
    figures = measure_kl(logps, reference_logps, Resampling(count, resamples=300), np.arange(count))
    for kind in ("k1", "k3"):
        low, high = figures[f"{kind}_interval"]
        assert low < exact < high and high - low < exact, (kind, exact, figures)
    assert figures["per_token"] == pytest.approx(figures["k1"] * count / sum(map(len, logps)))
    same = measure_kl(logps, logps, Resampling(count, resamples=20), np.arange(count))
    assert same["k1"] == same["k3"] == 0
