"""Sections on what training changed besides: the distance from the reference, variety, length, lost ability."""

from __future__ import annotations

from hf_align.report.figures import Metrics, absent, decimal, percent, plain, share
from hf_align.report.policy.compared import gain, label_of, lead, sentences, worst
from hf_align.report.sections import Content, Grade, Table

GOOD_VARIETY, FAIR_VARIETY = 0.05, 0.15
"""Loss of distinct-2, or rise of self-repetition."""
GOOD_LENGTH, GOOD_ENDED = 0.25, 0.1
"""Change of the mean length as a share of it, and fall of the share of ended responses."""
GOOD_LOSS, FAIR_LOSS = 0.02, 0.1
"""Rise of the negative log-likelihood of human text, nats per token; a fourth of it per byte."""


def kl(figures: Metrics, facts: Metrics) -> Content:
    """How far each policy is from the reference in nats, a response and a token."""
    reference = label_of(facts["reference"], facts)

    def say(label: str, each: Metrics) -> str:
        if "why" in each:
            return f"{label} has none: {each['why']}."
        distance, per_token = decimal(each["k1"]), decimal(each["per_token"], 3)
        return f"{label} is {distance} nats a response from {reference}, {per_token} a token."

    rows = [
        [label_of(name, facts), plain(each, "k1"), plain(each, "k3"), decimal(each["per_token"], 3)]
        for name, each in figures["policies"].items()
        if "why" not in each
    ]
    tables = [Table(("", "k1, 95% interval", "k3, 95% interval", "k1 a token"), rows)] if rows else []
    return Content(
        sentences(figures, facts, say),
        "",
        lead(figures, facts, lambda each: "" if "why" in each else f"{plain(each, 'k1')} nats"),
        tables,
        f"KL(policy || {reference}) of responses of up to {facts['max_new_tokens']} tokens, in nats, estimated on the "
        "policy's own: with r = log-prob under it minus under the reference, k1 sums r over a response's tokens, k3 "
        "exp(-r) - 1 + r; both are unbiased (Schulman, 2020), so far apart means too few responses.",
    )


def diversity(figures: Metrics, facts: Metrics) -> Content:
    """Distinct n-grams and repetition, graded by what they lost against the reference."""
    policies, reference = figures["policies"], facts["reference"]
    base = policies[reference]

    def grade(each: Metrics) -> Grade:
        losses = (base["distinct_2"] - each["distinct_2"], each["self_repetition"] - base["self_repetition"])
        most = max((loss for loss in losses if not absent(loss)), default=None)
        return "" if most is None else "good" if most <= GOOD_VARIETY else "fair" if most <= FAIR_VARIETY else "bad"

    def say(label: str, each: Metrics) -> str:
        return (
            f"{percent(each['distinct_2'], 0)} of the word pairs of {label} are distinct, of "
            f"{label_of(reference, facts)} {percent(base['distinct_2'], 0)}."
        )

    rows = [
        [
            label_of(name, facts),
            *(decimal(each[f"distinct_{n}"], 3) for n in (1, 2, 3)),
            share(each, "self_repetition"),
            f"{each['words']:,}",
        ]
        for name, each in policies.items()
    ]
    return Content(
        sentences(figures, facts, say) or f"{percent(base['distinct_2'], 0)} of its word pairs are distinct.",
        worst(grade(each) for name, each in policies.items() if name != reference),
        lead(figures, facts, lambda each: f"distinct-2 {decimal(each['distinct_2'])}"),
        [Table(("", "distinct-1", "distinct-2", "distinct-3", "self-repetition", "words"), rows)],
        "distinct-n: different n-grams of words among all of a policy's responses (Li et al., 2016); it falls with the "
        "number of words, so compare it at similar ones. Self-repetition: word triples that stood in the same response "
        "before (Welleck et al., 2020).",
    )


def length(figures: Metrics, facts: Metrics) -> Content:
    """Tokens, characters and how many responses end by themselves, graded by the change."""
    policies, reference = figures["policies"], facts["reference"]
    base = policies[reference]

    def grade(each: Metrics) -> Grade:
        if not base["characters"]:
            return ""
        change = abs(each["characters"] / base["characters"] - 1)
        return "good" if change <= GOOD_LENGTH and base["ended"] - each["ended"] <= GOOD_ENDED else "fair"

    def say(label: str, each: Metrics) -> str:
        return (
            f"{label} writes {decimal(each['tokens'], 1)} tokens and ends {percent(each['ended'], 0)} itself, "
            f"{label_of(reference, facts)} {decimal(base['tokens'], 1)} and {percent(base['ended'], 0)}."
        )

    rows = [
        [
            label_of(name, facts),
            plain(each, "tokens", 1),
            gain(each, "gain", 1),
            decimal(each["characters"], 0),
            share(each, "ended"),
        ]
        for name, each in policies.items()
    ]
    only = f"It writes {decimal(base['tokens'], 1)} tokens on average and ends {percent(base['ended'], 0)} itself."
    return Content(
        sentences(figures, facts, say) or only,
        worst(grade(each) for name, each in policies.items() if name != reference),
        lead(figures, facts, lambda each: f"{gain(each, 'gain', 1)} tokens"),
        [Table(("", "tokens, 95%", "longer, paired", "characters", "ended"), rows)],
        f"Tokens of the policy's own tokenizer, EOS not counted; the others were cut at {facts['max_new_tokens']}.",
    )


def lost_ability(figures: Metrics, facts: Metrics) -> Content:
    """What text by people costs each policy, graded by the rise against the reference."""
    policies, reference = figures["policies"], facts["reference"]

    def grade(each: Metrics) -> Grade:
        scale = 1 if each["unit"] == "token" else 0.25
        loss = each["increase"] / scale
        return "" if absent(loss) else "good" if loss <= GOOD_LOSS else "fair" if loss <= FAIR_LOSS else "bad"

    def say(label: str, each: Metrics) -> str:
        return (
            f"Text by people costs {label} {gain(each, 'increase', 3)} nats a {each['unit']} against "
            f"{label_of(reference, facts)}."
        )

    rows = [
        [
            label_of(name, facts),
            plain(each, "nll", 3),
            decimal(each["per_byte"], 3),
            f"{gain(each, 'increase', 3)} a {each['unit']}" if "increase" in each else "",
        ]
        for name, each in policies.items()
    ]
    only = next(iter(policies.values()))
    cut = f" {figures['cut']} were cut to their first 2,000 characters." if figures["cut"] else ""
    return Content(
        sentences(figures, facts, say) or f"It predicts text by people with {decimal(only['nll'], 3)} nats a token.",
        worst(grade(each) for name, each in policies.items() if name != reference),
        lead(figures, facts, lambda each: f"{gain(each, 'increase', 3)} nats"),
        [Table(("", "nats a token, 95%", "nats a byte", "increase, paired"), rows)],
        f"Negative log-likelihood of {figures['texts']:,} texts ({figures['source']}) without any prompt, every token "
        f"but the first.{cut} Intervals: bootstrap over texts; increases are paired by text, per byte where the tokens "
        "differ.",
    )
