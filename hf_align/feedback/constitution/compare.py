"""The preference half: two or more responses to each prompt, and votes on every pair by several principles.

After Bai et al. (2022), section 4. There each pair is labelled by one principle; here by several, whose mean is the
soft label.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

from scipy.special import expit, logit
from torch import nn

from hf_align.collators.rows import is_blank
from hf_align.data.code import code_digest
from hf_align.data.parts import Parts, digest
from hf_align.feedback.collection.writers import Text
from hf_align.feedback.constitution.draws import draw_pairs, draw_principles
from hf_align.feedback.constitution.principles import Principle
from hf_align.feedback.constitution.work import Work
from hf_align.feedback.judges.endpoint.judge import EndpointJudge
from hf_align.feedback.judges.function import FunctionJudge
from hf_align.feedback.judges.language_model import position_bias
from hf_align.feedback.judges.named import NamedJudge
from hf_align.feedback.records import Prompt
from hf_align.models.digest import weights_digest
from hf_align.progress import Progress
from hf_align.rewards.judges import Judge, Judgement, combine_orders
from hf_align.version import versions

EVEN = 1e-9
"""Rounding of log-odds."""
TEMPLATE = """Compare two responses to a prompt.

Prompt:
{prompt}

Response A:
{first}

Response B:
{second}

{principle} Answer with A or B only."""
"""Question to a language model; its field {principle} gets the question of a principle."""


@runtime_checkable
class PrincipleJudge(Judge, Protocol):
    """A judge that can be asked by a principle, as `LanguageModelJudge` is."""

    def with_principle(self, principle: str, name: str | None = None, *, prompt: str | None = None) -> Judge:
        """The judge that is asked this."""
        ...


class PrincipleFunctionJudge(FunctionJudge):
    """A function `f(prompt, first, second, principle)` as a judge, asked by the question of a principle."""

    def with_principle(self, principle: str, name: str | None = None, *, prompt: str | None = None) -> FunctionJudge:
        """The judge that is asked this; a function gets no template."""
        return FunctionJudge(partial(self.function, principle=principle), name or self.name)


def by_principles(judge: Judge) -> Judge:
    """The judge, loaded if it was only named, and asked by principles if it is a function that takes one."""
    judge = judge.opened if isinstance(judge, NamedJudge) else judge
    takes = isinstance(judge, FunctionJudge) and "principle" in inspect.signature(judge.function).parameters
    return PrincipleFunctionJudge(cast(FunctionJudge, judge).function, judge.name) if takes else judge


@dataclass(frozen=True)
class Vote:
    """A judgement of a pair.

    Attributes:
        principle: By what; None: the judge takes no principles.
        judgement: The judgement.
    """

    principle: Principle | None
    judgement: Judgement

    @property
    def weight(self) -> float:
        """Weight of the vote."""
        return 1.0 if self.principle is None else self.principle.weight


@dataclass
class Compared:
    """Two responses to a prompt, and the votes on them.

    Attributes:
        prompt: The prompt, in messages.
        first: One response.
        second: The other.
        votes: In the order of the constitution.
    """

    prompt: Prompt
    first: Text
    second: Text
    votes: list[Vote] = field(default_factory=list)

    @property
    def preference(self) -> float | None:
        """Weighted mean of the votes' P(first is better); None without any opinion."""
        given = [(vote.weight, vote.judgement.preference) for vote in self.votes]
        known = [(weight, preference) for weight, preference in given if preference is not None]
        total = sum(weight for weight, _ in known)
        return sum(weight * preference for weight, preference in known) / total if known else None


@dataclass
class Comparisons:
    """Pairs of responses.

    Attributes:
        pairs: The pairs.
        responses: Responses by prompt id, in the order they were sampled; the empty and repeated ones, too.
        alike: Prompts without two different responses.
    """

    pairs: list[Compared]
    responses: dict[str, list[Text]]
    alike: int


def sample_pairs(work: Work, prompts: Sequence[Prompt], progress: Progress) -> Comparisons:
    """Sample responses to prompts, and pair those that differ.

    Args:
        work: The writer and what it is asked.
        prompts: Different prompts in messages.
        progress: Receiver of progress.
    """
    config, made = work.config, Comparisons([], {}, 0)
    with progress.task("responses", len(prompts)) as advance:
        for start in range(0, len(prompts), config.batch_size):
            batch = prompts[start : start + config.batch_size]
            written = work.write(
                batch,
                "response",
                temperature=config.temperature,
                max_new_tokens=config.max_new_tokens,
                count=config.responses_per_prompt,
            )
            for prompt, texts in zip(batch, written, strict=True):
                made.responses[prompt.id] = texts
                different = {digest(text.text): text for text in reversed(texts) if not is_blank(text.text)}
                pairs = draw_pairs(list(different), prompt, config.max_pairs, config.seed)
                made.pairs += [Compared(prompt, different[one], different[other]) for one, other in pairs]
                made.alike += not pairs
            advance(start + len(batch), "")
    return made


def vote(work: Work, pairs: Sequence[Compared], judge: Judge, progress: Progress) -> dict[str, float]:
    """Have each pair judged by the principles drawn for its prompt, or once by a judge that takes none.

    Args:
        work: Constitution, options and finished steps.
        pairs: The pairs, which get their votes.
        judge: The judge.
        progress: Receiver of progress.

    Returns:
        The position bias that was taken out, in log-odds, by principle.
    """
    config, constitution = work.config, work.constitution
    due: defaultdict[str | None, list[Compared]] = defaultdict(list)
    for pair in pairs:
        drawn = draw_principles(constitution.principles, pair.prompt, config.votes, config.seed, "vote")
        for id in [principle.id for principle in drawn] if isinstance(judge, PrincipleJudge) else [None]:
            due[id].append(pair)
    biases: dict[str, float] = {}
    total, done, identity = sum(map(len, due.values())), 0, identity_of(judge)
    with progress.task("votes", total) as advance:
        for principle in (*constitution.principles, None):
            asked = due[None if principle is None else principle.id]
            chosen, judgements = judge, list[Judgement]()
            if principle is not None and isinstance(judge, PrincipleJudge):
                chosen = judge.with_principle(principle.question, prompt=TEMPLATE)
            for start in range(0, len(asked), config.batch_size):
                batch = asked[start : start + config.batch_size]
                asks = {**identity, "question": None if principle is None else principle.question}
                judgements += _judge(work.parts, chosen, asks, batch)
                done += len(batch)
                advance(done, judge.name)
            if config.calibrate and abs(bias := bias_of(judgements)) > EVEN:
                biases[judge.name if principle is None else principle.id] = bias
                judgements = [without_bias(judgement, bias) for judgement in judgements]
            for pair, judgement in zip(asked, judgements, strict=True):
                pair.votes.append(Vote(principle, judgement))
    return biases


def identity_of(judge: Judge) -> dict[str, Any]:
    """What determines a judge's opinions, as JSON can write it.

    Name, weights of its models, how scores are used, code of its functions, model and settings at an endpoint.
    """
    rewards = getattr(getattr(judge, "reward", None), "members", [])
    named = [getattr(judge, "function", None), *(part.source for part in rewards)]
    code = [code_digest(source) for source in named if callable(source) and not isinstance(source, nn.Module)]
    sources = [getattr(judge, "model", None), *(part.source for part in rewards)]
    weights = [weights_digest(model) for model in sources if isinstance(model, nn.Module)]
    scored = {"rewards": [[part.name, part.weight] for part in rewards], "tie_band": getattr(judge, "tie_band", None)}
    return {
        "judge": judge.name,
        **(scored if rewards else {}),
        **({"weights": weights, "versions": versions()} if weights else {}),
        **({"code": code} if code else {}),
        **({"endpoint": judge.settings()} if isinstance(judge, EndpointJudge) else {}),
    }


def bias_of(judgements: Sequence[Judgement]) -> float:
    """What a judge adds to the log-odds of the response shown first; 0 where it isn't a matter of degree.

    It is the number that, taken out, makes the mean probability of the response shown first 1/2. 0 without opinions,
    and for judges that don't see an order, or choose without a probability.
    """
    shown = [(each.orders[0], each.orders[1]) for each in judgements if each.orders is not None]
    if len(shown) < len(judgements) or not shown:
        return 0.0
    first = [each for forward, backward in shown for each in (forward, None if backward is None else 1 - backward)]
    graded = [each for each in first if each is not None and 0 < each < 1]
    return position_bias(logit(graded)) if len(graded) == len(first) else 0.0


def without_bias(judgement: Judgement, bias: float) -> Judgement:
    """The judgement with a position bias taken out of both orders."""
    assert judgement.orders is not None
    forward, backward = (cast(float, opinion) for opinion in judgement.orders)
    return combine_orders(float(expit(logit(forward) - bias)), float(1 - expit(logit(1 - backward) - bias)))


def _judge(parts: Parts, judge: Judge, identity: Any, pairs: Sequence[Compared]) -> list[Judgement]:
    """Judgements of pairs that are asked for together."""
    sides = [(pair.prompt.content, pair.first.text, pair.second.text) for pair in pairs]

    def compute() -> list[Any]:
        prompts, firsts, seconds = zip(*sides, strict=True)
        judgements = judge.compare(prompts, firsts, seconds)
        return [[each.preference, None if each.orders is None else list(each.orders)] for each in judgements]

    made = parts.get({**identity, "pairs": sides}, compute)
    return [Judgement(preference, None if orders is None else tuple(orders)) for preference, orders in made]
