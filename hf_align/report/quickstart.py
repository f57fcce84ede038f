"""The report page of a quickstart: curves, tables and samples put into the template."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from hf_align.report.charts import MINUS, Interval, Reference, interval_chart, line_chart

DASH = "\N{EN DASH}"
SHOWN_PER_DOMAIN = 3
STAGES = ("reward", "dpo", "ipo", "ppo")
NAMES = {"base": "before", "dpo": "DPO", "ipo": "IPO", "ppo": "PPO"}
SCORER_COLORS = {"reward model": "reward", "VADER": "base", "single human": "human"}
POLICY_CURVES = (
    ("loss", "loss", None, None),
    ("rewards/accuracies", "pairs ranked right", (0.0, 1.0), Reference(0.5, "chance")),
    ("rewards/margins", "reward margin", None, Reference(0.0, "reference policy")),
)
History = Sequence[Mapping[str, Any]]


def render_report(
    metrics: Mapping[str, Any], histories: Mapping[str, History], samples: Sequence[Mapping[str, Any]]
) -> str:
    """Renders report.html.

    Args:
        metrics: What metrics.json holds.
        histories: Each trainer's log history, by "reward", "dpo", "ipo" and "ppo".
        samples: One per prompt: `prompt`, `domain`, `policies: {name: {text, score, reward}}`, in random order; the
            first few of each domain are shown, so none was picked for what it says.

    Returns:
        The page. All text that a model or a data set wrote is escaped.
    """
    environment = Environment(
        loader=PackageLoader("hf_align.report", "pages"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(signed=signed, fixed=fixed, duration=duration, interval=interval, verdict=verdict)
    return environment.get_template("quickstart.html.j2").render(
        metrics=metrics,
        names=NAMES,
        colors=SCORER_COLORS,
        reward_charts=_reward_charts(metrics, histories["reward"]),
        policy_charts={
            "dpo": _policy_charts(metrics, histories["dpo"], "dpo"),
            "ipo": _policy_charts(metrics, histories["ipo"], "ipo"),
            "ppo": _ppo_charts(metrics, histories["ppo"]),
        },
        options=_options(metrics["settings"]["numbers"]),
        people_chart=_people_chart(metrics["reward_model"]),
        judge_chart=_judge_chart(metrics["policies"]),
        samples=_first_of_each_domain(samples),
        stages=STAGES,
        total_seconds=sum(metrics["seconds"].values()),
        smoke=metrics["settings"]["profile"] == "smoke",
    )


def curve(history: History, name: str) -> list[tuple[float, float]]:
    """The (step, value) pairs under which `name` was logged; a value that JSON could not hold (null) is NaN."""
    values = [(entry["step"], entry[name]) for entry in history if name in entry]
    return [(float(step), math.nan if value is None else float(value)) for step, value in values]


def _reward_charts(metrics: Mapping[str, Any], history: History) -> list[Markup]:
    held_out = metrics["held_out"]["reward"]
    return [
        line_chart(
            curve(history, "loss"),
            title="loss (weighted by the rating gap)",
            color="reward",
            held_out=held_out["loss"],
        ),
        line_chart(
            curve(history, "accuracy"),
            title="pairs ranked right",
            color="reward",
            reference=Reference(0.5, "chance"),
            held_out=held_out["accuracy"],
            y_range=(0.0, 1.0),
        ),
        line_chart(
            curve(history, "margin"),
            title="reward of chosen minus rejected",
            color="reward",
            reference=Reference(0.0, ""),
            held_out=held_out["margin"],
        ),
    ]


def _policy_charts(metrics: Mapping[str, Any], history: History, name: str) -> list[Markup]:
    held_out = metrics["held_out"][name]
    log_2 = Reference(math.log(2), "log 2, no difference yet")
    return [
        line_chart(
            curve(history, key),
            title=f"{NAMES[name]}: {title}",
            color=name,
            reference=log_2 if (name, key) == ("dpo", "loss") else reference,
            held_out=held_out.get(key),
            y_range=y_range,
        )
        for key, title, y_range, reference in POLICY_CURVES
    ]


def _ppo_charts(metrics: Mapping[str, Any], history: History) -> list[Markup]:
    held_out, numbers = metrics["held_out"]["ppo"], metrics["settings"]["numbers"]["ppo"]
    before = Reference(metrics["policies"]["all"]["policies"]["base"]["reward"], "before")
    target = Reference(numbers["target_kl"], "target")
    shown = (
        ("objective/scores", "reward of a rollout", before, held_out["reward"]),
        ("objective/kl", "KL from before, nats a response", target, held_out["objective/kl"]),
        ("kl_coef", "KL coefficient", None, None),
    )
    return [
        line_chart(curve(history, key), title=f"PPO: {title}", color="ppo", reference=reference, held_out=value)
        for key, title, reference, value in shown
    ]


def _options(numbers: Mapping[str, Any]) -> list[str]:
    """Every option that any of the four trainings sets, in order."""
    return list(dict.fromkeys(key for stage in STAGES for key in numbers[stage]))


def _people_chart(report: Mapping[str, Any]) -> Markup:
    rows = [
        (label, [Interval(n, SCORER_COLORS[n], s["r"], s.get("r_interval")) for n, s in part["scorers"].items()])
        for label, part in report.items()
    ]
    return interval_chart(rows, title="Correlation r with the mean of many people, 95% intervals")


def _judge_chart(report: Mapping[str, Any]) -> Markup:
    rows = [
        (label, [Interval(NAMES[n], n, p["score"], p["score_interval"]) for n, p in part["policies"].items()])
        for label, part in report.items()
    ]
    return interval_chart(rows, title="VADER score of the continuations, 95% intervals")


def _first_of_each_domain(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    shown: list[Mapping[str, Any]] = []
    for domain in dict.fromkeys(sample["domain"] for sample in samples):
        shown += [sample for sample in samples if sample["domain"] == domain][:SHOWN_PER_DOMAIN]
    return shown


def verdict(ends: Sequence[float]) -> str:
    """What an interval of gains allows to say."""
    if ends[0] > 0:
        return "writes more positively"
    return "writes less positively" if ends[1] < 0 else "shows no clear change"


def signed(value: float | None) -> str:
    """`+0.12`, with a real minus sign."""
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return DASH if value is None else f"{round(value, 2) + 0.0:+.2f}".replace("-", MINUS)


def fixed(value: float | None, digits: int = 2) -> str:
    """`0.12`, with a real minus sign; a dash where there is no value."""
    return DASH if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", MINUS)


def interval(ends: Sequence[float] | None, sign: bool = True) -> str:
    """`[+0.10, +0.14]`, or without plus signs; nothing where there is no interval."""
    show = signed if sign else fixed
    return "" if ends is None else f"[{show(ends[0])}, {show(ends[1])}]"


def duration(seconds: float) -> str:
    """`8 s`, `3 min 5 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
