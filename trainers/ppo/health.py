"""Warnings about a PPO run that goes wrong without an error: figures of its rollouts in, warnings out.

Each figure is looked at over several rollouts and enough responses that noise doesn't reach the thresholds, and each
kind is said once in a run. The thresholds:

- **KL** thrice the target in three rollouts running: an adaptive coefficient overshoots up to twice while it is still
  moving. Without a target, a nat a token: there the reference says little about what is sampled.
- **Length** half or twice the start's. Where lengths spread as much as they measure, the ratio of two means of 128
  responses has an error of an eighth, so half is four errors away. Growth that is wanted is worth a look, too.
- **Share of ended responses** .4 from the start's: six errors of the difference of two shares of 128.
- **Clipped tokens** more than half in three rollouts running: .1 to .3 is usual, and a clipped token teaches nothing.
- **Explained variance** 0 or below in five rollouts running, from the tenth on: a new value head starts below 0.
- **Entropy** a fifth of the start's, by token: it halves in runs that go well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

ROLLOUTS, RESPONSES = 3, 128
"""A mean is over at least so many of both."""
KL_FACTOR, KL_BY_TOKEN = 3.0, 1.0
LENGTH_FACTOR = 2.0
SHARE_DRIFT = 0.4
MOST_CLIPPED = 0.5
VALUE_PATIENCE, VALUE_ROLLOUTS = 10, 5
ENTROPY_FACTOR = 5.0


@dataclass(frozen=True)
class Figures:
    """Means over a rollout's responses, of all processes.

    Attributes:
        responses: How many there are.
        kl: Nats a response.
        length: Tokens a response.
        eos_share: Share of responses that the policy ended.
        entropy: Nats a token; None: not known.
        explained_variance: Of the returns, by the values; None: not known.
        clipped: Share of tokens beyond the clip range in the updates since the rollout before; None: there were none.
    """

    responses: int
    kl: float
    length: float
    eos_share: float
    entropy: float | None = None
    explained_variance: float | None = None
    clipped: float | None = None


class Health:
    """Watches the rollouts of a run.

    Args:
        target_kl: Nats a response that the KL controller keeps to; None: it keeps to nothing.

    Attributes:
        said: The warnings so far, by kind.

    Example:
        >>> from hf_align.trainers.ppo.health import Figures, Health
        >>> health = Health(target_kl=6.0)
        >>> for length in (20, 21, 20, 12, 8, 7):
        ...     warnings = health.watch(Figures(responses=64, kl=1.0, length=length, eos_share=0.9))
        >>> list(warnings)
        ['length']
    """

    def __init__(self, target_kl: float | None) -> None:
        self.target_kl = target_kl
        self.said: dict[str, str] = {}
        self._start: list[Figures] = []
        self._last: list[Figures] = []
        self._rollouts = 0

    def watch(self, figures: Figures) -> dict[str, str]:
        """Add the next rollout and return the new warnings, with advice, by kind."""
        self._rollouts += 1
        if not _enough(self._start):
            self._start.append(figures)
        else:
            self._last.append(figures)
        self._last = self._last[-max(VALUE_ROLLOUTS, _count(self._last)) :]
        checks: dict[str, Callable[[], str | None]] = {
            "kl": self._kl,
            "length": self._length,
            "eos_share": self._eos_share,
            "clipped": self._clipped,
            "values": self._values,
            "entropy": self._entropy,
        }
        new = {kind: text for kind, check in checks.items() if kind not in self.said and (text := check())}
        self.said |= new
        return new

    def state_dict(self) -> dict[str, Any]:
        """State from which a resumed run goes on watching."""
        return {
            "said": self.said,
            "start": [asdict(each) for each in self._start],
            "last": [asdict(each) for each in self._last],
            "rollouts": self._rollouts,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.said, self._rollouts = dict(state["said"]), state["rollouts"]
        self._start = [Figures(**each) for each in state["start"]]
        self._last = [Figures(**each) for each in state["last"]]

    # ---- the kinds ----

    def _kl(self) -> str | None:
        last = (self._start + self._last)[-ROLLOUTS:]
        if len(last) < ROLLOUTS:
            return None
        lowest = min(each.kl for each in last)
        if self.target_kl is not None and lowest > KL_FACTOR * self.target_kl:
            limit = f"{KL_FACTOR:g} times target_kl={self.target_kl:g}"
        elif self.target_kl is None and all(each.kl > KL_BY_TOKEN * each.length for each in last):
            limit = f"{KL_BY_TOKEN:g} nat a token"
        else:
            return None
        return (
            f"the KL runs away: {lowest:.3g} nats a response and more in {ROLLOUTS} rollouts, above {limit}. Lower "
            "learning_rate, raise kl_coef, or let it rise faster with a shorter kl_horizon."
        )

    def _length(self) -> str | None:
        start, now = self._then_and_now("length")
        if start is None or now is None or start / LENGTH_FACTOR < now < start * LENGTH_FACTOR:
            return None
        shorter = now < start
        advice = (
            "read samples: rewards that like short answers, or a reward model that hardly saw long ones, do this"
            if shorter
            else "read samples: rewards that add up over a text do this, and missing_eos_penalty holds against it"
        )
        return (
            f"responses became {'shorter' if shorter else 'longer'}: {now:.3g} tokens, {start:.3g} at the start. If "
            f"that isn't wanted, {advice}; a lower target_kl keeps closer to the reference."
        )

    def _eos_share(self) -> str | None:
        start, now = self._then_and_now("eos_share")
        if start is None or now is None or abs(now - start) < SHARE_DRIFT:
            return None
        advice = (
            "look whether responses only became shorter"
            if now > start
            else "set missing_eos_penalty, or raise max_new_tokens if responses are cut in the middle"
        )
        return f"the policy ends {now:.0%} of its responses itself, {start:.0%} at the start: {advice}."

    def _clipped(self) -> str | None:
        last = [each.clipped for each in (self._start + self._last)[-ROLLOUTS:] if each.clipped is not None]
        if len(last) < ROLLOUTS or min(last) <= MOST_CLIPPED:
            return None
        return (
            f"updates go too far: more than {MOST_CLIPPED:.0%} of tokens were beyond clip_range in {ROLLOUTS} rollouts "
            "and taught nothing. Lower learning_rate or num_ppo_epochs, or set early_stop_kl."
        )

    def _values(self) -> str | None:
        last = [each.explained_variance for each in (self._start + self._last)[-VALUE_ROLLOUTS:]]
        known = [value for value in last if value is not None]
        if self._rollouts < VALUE_PATIENCE or len(known) < VALUE_ROLLOUTS or max(known) > 0:
            return None
        return (
            f"the values explain nothing: explained variance 0 or below in {VALUE_ROLLOUTS} rollouts, after "
            f"{self._rollouts}. Raise value_learning_rate, take more responses a rollout, or start with "
            "value_init='reward'."
        )

    def _entropy(self) -> str | None:
        start, now = self._then_and_now("entropy")
        if start is None or now is None or now > start / ENTROPY_FACTOR:
            return None
        return (
            f"the entropy collapses: {now:.2g} nats a token, {start:.2g} at the start; samples are nearly all the same "
            "and teach little. Set entropy_coef=0.01, lower learning_rate or raise kl_coef."
        )

    def _then_and_now(self, name: str) -> tuple[float | None, float | None]:
        """A figure's mean at the start and over the last rollouts, by responses; None before there are enough."""
        last = self._last[-_count(self._last) :]
        if not _enough(self._start) or not _enough(last):
            return None, None
        return _mean(self._start, name), _mean(last, name)


def _enough(rollouts: list[Figures]) -> bool:
    return len(rollouts) >= ROLLOUTS and sum(each.responses for each in rollouts) >= RESPONSES


def _count(rollouts: list[Figures]) -> int:
    """How many of the last rollouts are enough; all if all are too few."""
    return next((count for count in range(ROLLOUTS, len(rollouts)) if _enough(rollouts[-count:])), len(rollouts))


def _mean(rollouts: Iterable[Figures], name: str) -> float | None:
    weighted = [(each.responses, getattr(each, name)) for each in rollouts]
    if any(value is None for _, value in weighted):
        return None
    return sum(count * value for count, value in weighted) / sum(count for count, _ in weighted)
