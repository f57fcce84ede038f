"""What a policy writes to the held-out prompts, and what it is worth: the same prompts and random numbers for all."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_align.collators import encode_prompts
from hf_align.evaluation.best_of_n import best_of_n_kl
from hf_align.evaluation.continuations import Continuation, sample_continuations
from hf_align.evaluation.policy_inputs import Asked
from hf_align.evaluation.scorers import judge_scores
from hf_align.evaluation.writing import is_adapter_on, token_logps
from hf_align.experiments.improvement.evaluate import compare_texts
from hf_align.experiments.judges import scores_or_judge
from hf_align.feedback.judges.named import check_judge
from hf_align.losses.kl import estimate_kl
from hf_align.models.adapters import active_adapter
from hf_align.models.loading import load_policy
from hf_align.models.placement import to_gpu
from hf_align.models.quantized import Quantization
from hf_align.models.sources import load_tokenizer
from hf_align.progress import Progress
from hf_align.rewards import Judge
from hf_align.rewards.named import read_reward
from hf_align.rewards.vader import VADER

Figures = dict[str, list[Any]]
"""`[N]` figures of the responses to N prompts, by name."""


@dataclass(frozen=True)
class Conditions:
    """What all policies are measured under.

    Attributes:
        base: Folder or Hub id of the base.
        quantization: Quantisation of the models.
        asked: The held-out prompts.
        judge: The judge as the grid names it.
        max_new_tokens: Length limit of a response.
        batch_size: Prompts answered together.
        seed: The run's.
        progress: Receiver of progress.
    """

    base: str
    quantization: Quantization
    asked: Asked
    judge: Any
    max_new_tokens: int
    batch_size: int
    seed: int
    progress: Progress

    def load(self, name: str) -> Any:
        """A policy, on the GPU if there is one."""
        return to_gpu(load_policy(name, quantization=self.quantization), self.quantization)

    def respond(self, model: Any, draw: int = 0) -> list[Continuation]:
        """`[N]` a policy's responses.

        Args:
            model: The policy.
            draw: Number of the draw: each has random numbers of its own, the same for all policies.
        """
        with self.progress.task(f"held-out prompts, draw {draw + 1}", len(self.asked)) as advance:
            return sample_continuations(
                model,
                load_tokenizer(self.base),
                self.asked.prompts,
                rows=self.asked.options,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                seed=sampling_seed(self.seed, draw),
                progress=lambda done: advance(done, ""),
            )

    def scored(self, reward: Any, written: Mapping[str, Sequence[Continuation]]) -> dict[str, list[float]]:
        """The scores of a reward, or of a judge that scores, by name of what wrote; None is VADER."""
        texts = {name: [each.text for each in samples] for name, samples in written.items()}
        ended = {name: [each.ended for each in samples] for name, samples in written.items()}
        return judge_scores(reward, self.asked.prompts, texts, ended, self.asked.columns, self.quantization)

    def rewarded(self, reward: Any, written: Mapping[str, Sequence[Continuation]]) -> dict[str, list[float]]:
        """The scores of a data set's reward, as a grid names it."""
        return self.scored(read_reward(reward), written)

    def judged(
        self, written: Mapping[str, Sequence[Continuation]], base_texts: Callable[[], Sequence[str]]
    ) -> dict[str, Figures]:
        """The judge's figures by name of what wrote: "judge", its scores; or "win" over the base's responses.

        Args:
            written: Responses.
            base_texts: Gives the base's, where the judge compares.
        """
        judge = scores_or_judge(check_judge(self.judge))
        if isinstance(judge, Judge):
            others = base_texts()
            outcomes = {
                name: compare_texts(judge, self.asked.prompts, [each.text for each in samples], others)[0]
                for name, samples in written.items()
            }
            return {name: {"win": values} for name, values in outcomes.items()}
        scores = self.scored(None if judge == VADER else judge, written)
        return {name: {"judge": values} for name, values in scores.items()}


def sampling_seed(seed: int, draw: int) -> int:
    """The seed of a draw of responses: those of neighbouring runs and draws don't overlap."""
    return int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])


def kl_from_base(conditions: Conditions, name: str, samples: Sequence[Continuation], model: Any) -> list[float]:
    """`[N]` log-ratio of policy to base of each response, in nats: their mean estimates KL(policy || base), unbiased.

    Args:
        conditions: The conditions.
        name: Folder of the policy.
        samples: Its responses.
        model: The policy, loaded. Where it isn't an adapter on the base, the base is loaded, too.
    """
    tokenizer = load_tokenizer(conditions.base)
    prompts = encode_prompts(tokenizer, conditions.asked.prompts, "prompts", conditions.asked.options)
    encoded = [(prompt, each.token_ids) for prompt, each in zip(prompts, samples, strict=True)]
    logps = token_logps(model, encoded, tokenizer, conditions.progress, "policy")
    if is_adapter_on(name, conditions.base):
        with active_adapter(model, None):
            others = token_logps(model, encoded, tokenizer, conditions.progress, "base")
    else:
        others = token_logps(conditions.load(conditions.base), encoded, tokenizer, conditions.progress, "base")
    return [
        float(estimate_kl(torch.from_numpy(ours), torch.from_numpy(theirs), kind="k1").sum())
        for ours, theirs in zip(logps, others, strict=True)
    ]


def described(samples: Sequence[Continuation], kl: Sequence[float]) -> Figures:
    """Figures that need no judge: "kl", "length" in tokens, "finished"."""
    return {"kl": list(kl), "length": [each.tokens for each in samples], "finished": [each.ended for each in samples]}


def measure_policy(
    conditions: Conditions, name: str, reward: Any, base_texts: Callable[[], Sequence[str]]
) -> dict[str, Any]:
    """Measure a policy.

    Args:
        conditions: The conditions.
        name: Its folder.
        reward: Its data set's reward as the grid names it; None without.
        base_texts: Gives the base's responses, where the judge compares.

    Returns:
        "figures" and "responses".
    """
    model = conditions.load(name)
    samples = conditions.respond(model)
    figures = described(samples, kl_from_base(conditions, name, samples, model))
    del model
    release()
    figures |= conditions.judged({"policy": samples}, base_texts)["policy"]
    if reward is not None:
        figures["reward"] = conditions.rewarded(reward, {"policy": samples})["policy"]
    return {"figures": figures, "responses": [each.text for each in samples]}


def measure_base(conditions: Conditions) -> dict[str, Any]:
    """Measure the base; as `measure_policy`, without a reward."""
    samples = conditions.respond(conditions.load(conditions.base))
    release()
    texts = [each.text for each in samples]
    figures = described(samples, [0.0] * len(samples))
    figures |= conditions.judged({"base": samples}, lambda: texts)["base"]
    return {"figures": figures, "responses": texts}


def measure_best_of_n(
    conditions: Conditions, reward: Any, numbers: Sequence[int], penalty: float, base_texts: Callable[[], Sequence[str]]
) -> dict[str, Any]:
    """Measure the best of the base's first n responses by a reward, for each n; the first of all is the base's own.

    Args:
        conditions: The conditions.
        reward: The reward as the grid names it.
        numbers: The n, ascending.
        penalty: Subtracted from the score of a response that the length limit cut.
        base_texts: Gives the base's responses, where the judge compares.

    Returns:
        "by_n", by n as text; "figures" and "responses" of the largest.
    """
    model = conditions.load(conditions.base)
    draws = [conditions.respond(model, draw) for draw in range(max(numbers))]
    del model
    release()
    scores = conditions.rewarded(reward, {str(draw): samples for draw, samples in enumerate(draws)})
    table = np.asarray([scores[str(draw)] for draw in range(len(draws))])  # [draws, N]
    ranked = table - penalty * np.asarray([[not each.ended for each in samples] for samples in draws])
    picked = {n: ranked[:n].argmax(0) for n in numbers}
    chosen = {str(n): [draws[draw][row] for row, draw in enumerate(places.tolist())] for n, places in picked.items()}
    judged = conditions.judged(chosen, base_texts)
    rows = np.arange(table.shape[1])
    by_n = {
        str(n): {
            **described(chosen[str(n)], [best_of_n_kl(n)] * len(rows)),
            **judged[str(n)],
            "reward": table[places, rows].tolist(),
        }
        for n, places in picked.items()
    }
    last = str(max(numbers))
    return {"by_n": by_n, "figures": by_n[last], "responses": [each.text for each in chosen[last]]}


def release() -> None:
    """Free what a dropped model held: it is part of reference cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
