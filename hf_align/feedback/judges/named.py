"""Judges named in a recipe: what `judge:` may be, checked at the start and loaded when it is first asked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hf_align.coerce import coerce
from hf_align.collators.checks import as_dataset, read_rows
from hf_align.collators.rows import Pair, RowProblem, Side, read_pair
from hf_align.data.layouts.recognition import trained_rows
from hf_align.data.sources import load_rows
from hf_align.errors import LoadError, UserError
from hf_align.feedback.judges.endpoint.options import ENDPOINT_KEYS, check_endpoint, open_endpoint
from hf_align.feedback.judges.function import FunctionJudge
from hf_align.feedback.judges.language_model import LanguageModelJudge, check_bias
from hf_align.feedback.judges.question import Question, read_template
from hf_align.feedback.judges.reward import RewardJudge, check_tie_band
from hf_align.files import REWARD_CONFIG, REWARD_HEAD
from hf_align.models.ensemble_files import member_sources
from hf_align.models.kinds import check_head, check_is_policy, is_classifier
from hf_align.models.sources import check_source, find_file, is_ensemble
from hf_align.rewards.judges import Judge, Judgement
from hf_align.rewards.named import read_function, read_reward
from hf_align.rewards.reward import check_functions
from hf_align.rewards.vader import VADER, vader_judge, vader_scores

CALIBRATION_PAIRS = 100
"""Pairs of `calibrate` by default: on our data the bias is then known to a tenth of its spread over pairs."""
NAMES = "vader, the folder or Hub id of a reward model or language model, FILE.py:FUNCTION that scores responses"
"""What a judge's name may be, for messages."""
Values = dict[str, Any]
_EXPECTED = {
    **{"reward": "a folder, a Hub id, a function or a list of them", "function": "FILE.py:FUNCTION"},
    **{"model": "a folder or Hub id", "endpoint": "the name of a model at the endpoint"},
}


@dataclass(frozen=True)
class JudgeKind:
    """One kind of judge that a recipe can name.

    Attributes:
        keys: Keys of its mapping with their types; the first has the kind's name, and names the judge.
        check: Refuses wrong values, without loading a model; gets the values and their place.
        open: Loads the judge; gets the values and their place.
    """

    keys: Mapping[str, Any]
    check: Callable[[Values, str], None]
    open: Callable[[Values, str], Judge]


@dataclass(frozen=True)
class NamedJudge:
    """A judge that a recipe names: checked, and loaded when it is first asked. It is a `hf_align.rewards.Judge`.

    Attributes:
        kind: Its key in `KINDS`.
        values: Its mapping in the recipe.
        place: Its place in the recipe or command line, for messages.

    Example:
        >>> from hf_align.feedback.judges.named import check_judge
        >>> judge = check_judge("vader")
        >>> judge.kind, judge.name
        ('reward', 'vader')
        >>> [judgement] = judge.compare(["How was it?"], ["I loved it."], ["I hated it."])
        >>> judgement.label
        1.0
    """

    kind: str
    values: Values
    place: str

    @property
    def name(self) -> str:
        """Its name in reports and stores: that of the recipe, else what it is made of."""
        return name_of(self.values)

    @cached_property
    def opened(self) -> Judge:
        """The judge, loaded at the first access."""
        return KINDS[self.kind].open({**self.values, "name": self.name}, self.place)

    def identity(self) -> dict[str, Any] | None:
        """What determines its opinions, under which they can be kept; None where that isn't known, as of a function."""
        identity = getattr(self.opened, "identity", None)
        return None if identity is None else identity()

    def compare(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Judgement]:
        """Judge `[N]` pairs of responses to `[N]` prompts.

        Raises:
            UserError: It can't be loaded, or fails.
        """
        return self.opened.compare(prompts, firsts, seconds)


def name_of(value: Any) -> str:
    """What a judge of a recipe is called in reports and stores; the value needn't be checked yet."""
    if not isinstance(value, dict):
        return str(value) if isinstance(value, str) else "reward"
    kind = next((kind for kind in KINDS if kind in value), "judge")
    made_of = value.get(kind)
    return str(value.get("name") or (made_of if isinstance(made_of, str) else kind))


def open_judge(value: Any, place: str = "judge") -> Judge:
    """The judge that a recipe names, loaded; arguments and errors as in `check_judge`."""
    return check_judge(value, place).opened


def check_judge(value: Any, place: str = "judge") -> NamedJudge:
    """Read a recipe's `judge`; no model is loaded.

    Args:
        value: "vader"; `FILE.py:FUNCTION` or `MODULE:FUNCTION`, a function that scores as a reward; the folder or Hub
            id of a reward model, an ensemble of them or a language model; a weighted list of rewards; or a mapping with
            one of the keys of `KINDS` and further keys of that kind.
        place: Its place in the recipe or command line, for messages.

    Raises:
        UserError: It is none of these, a key is unknown (the message suggests the nearest one) or has a wrong value, or
            a file, function or model doesn't exist.
    """
    with _told_at(place):
        values = value if isinstance(value, dict) else {_kind_of(value, place): value}
        name = _only_kind(values, place)
        kind = KINDS[name]
        checked = {str(key): _checked(str(key), each, kind.keys, place) for key, each in values.items()}
        kind.check(checked, place)
    return NamedJudge(name, checked, place)


@contextmanager
def _told_at(place: str) -> Iterator[None]:
    """Puts a judge's place before messages that don't have it, since whoever refuses a value may not know it."""
    try:
        yield
    except LoadError:  # the command line looks its option up by the name of what can't be loaded
        raise
    except UserError as error:
        message = str(error)
        if message.startswith(place):
            raise
        raise UserError(f"{place}: {message.removeprefix('judge: ')}") from error


def _only_kind(values: Values, place: str) -> str:
    """The kind that a mapping names."""
    kinds = [kind for kind in KINDS if kind in values]
    if len(kinds) != 1:
        near = [(key, difflib.get_close_matches(str(key), KINDS, n=1, cutoff=0.75)) for key in values]
        for key, meant in near if not kinds else ():
            if meant:
                raise UserError(f"{place}: {key} is not a valid key; did you mean {meant[0]}?")
        several = f"{' and '.join(kinds)} in one mapping" if kinds else repr(values)
        raise UserError(f"{place} expects a name or a mapping with one of {', '.join(KINDS)}, got {several}")
    made_of = values[kinds[0]]
    if made_of is None or isinstance(made_of, int | float) or (isinstance(made_of, str) and not made_of.strip()):
        expected = _EXPECTED[kinds[0]]
        raise UserError(f"{place}: {kinds[0]} expects {expected}, got {made_of!r}")
    return kinds[0]


def _kind_of(value: Any, place: str) -> str:
    """The kind of a judge that is only named; that of a model is read from its files."""
    if isinstance(value, list) or value == VADER:
        return "reward"
    if isinstance(value, str) and not value.strip():
        raise UserError(f"{place} is empty; give a name such as vader, or a mapping with one of {', '.join(KINDS)}")
    if not isinstance(value, str):
        raise UserError(f"{place} expects a name or a mapping with one of {', '.join(KINDS)}, got {value!r}")
    _, colon, function = value.rpartition(":")
    if colon and function.isidentifier():
        return "reward"
    if is_ensemble(value):
        return "reward"
    try:
        check_source(value)
    except LoadError as error:
        kinds = ", ".join(KINDS)
        reason = str(error).rstrip(".")
        raise LoadError(f"{reason}; a judge is {NAMES}, or a mapping with one of {kinds}", value) from error
    classifier = is_classifier(value)
    if classifier or find_file(value, REWARD_CONFIG) or find_file(value, REWARD_HEAD):
        return "reward"
    if classifier is None and not any(Path(value).glob("*.gguf")):
        raise UserError(
            f"{place}: the config of {value} doesn't say what it is; write {{reward: {value}}} for a reward model, "
            f"{{model: {value}}} for a language model"
        )
    return "model"


def _checked(key: str, value: Any, keys: Mapping[str, Any], place: str) -> Any:
    if key not in keys:
        meant = difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
        hint = f"did you mean {meant[0]}?" if meant else f"valid are {', '.join(keys)}"
        raise UserError(f"{place}: {key} is not a valid key; {hint}")
    try:
        return coerce(value, keys[key])
    except TypeError as error:
        raise UserError(f"{place}: {key} expects {error}, got {value!r}") from None


def _check_reward(values: Values, place: str) -> None:
    check_tie_band(values.get("tie_band"))
    if values["reward"] == VADER:
        vader_scores([])  # is it installed?
        return
    reward = read_reward(values["reward"], place)
    try:
        check_functions(reward, (), ())  # a judge has no rows, only prompts and responses
    except UserError as error:
        raise UserError(
            f"{place}: {str(error).rstrip('.')}; write it as f(prompts, responses), or name a function of two "
            "responses, f(prompt, first, second), by {function: FILE.py:FUNCTION}"
        ) from None
    for _, name in reward if isinstance(reward, list) else [(1.0, reward)]:
        for source in member_sources(name) if isinstance(name, str) else ():
            check_source(source)
            check_head(source)


def _open_reward(values: Values, place: str) -> Judge:
    reward = vader_judge if values["reward"] == VADER else read_reward(values["reward"], place)
    return RewardJudge(reward, values["name"], tie_band=values.get("tie_band"))


def _check_function(values: Values, place: str) -> None:
    FunctionJudge(read_function(values["function"], place))


def _open_function(values: Values, place: str) -> Judge:
    return FunctionJudge(read_function(values["function"], place), values["name"])


def _check_model(values: Values, place: str) -> None:
    check_source(values["model"])
    check_is_policy(values["model"], place, ask_hub=True)
    Question(read_template(values.get("prompt"), place), values.get("principle"))
    check_bias(values.get("bias", 0.0))
    if values.get("calibrate") is not None:
        if "bias" in values:
            raise UserError(f"{place}: bias and calibrate are both given; calibrate measures the bias, so drop one")
        _calibration_pairs(values, place)
    elif "calibration_pairs" in values:
        raise UserError(f"{place}: calibration_pairs goes with calibrate, the data set that the pairs are from")


def _open_model(values: Values, place: str) -> Judge:
    judge = LanguageModelJudge(
        values["model"],
        prompt=read_template(values.get("prompt"), place),
        principle=values.get("principle"),
        name=values["name"],
        quantization=values.get("quantization"),
        bias=values.get("bias", 0.0),
    )
    if values.get("calibrate") is not None:
        pairs = _calibration_pairs(values, place)
        judge.calibrate(*([getattr(pair, side) for pair in pairs] for side in ("prompt", "chosen", "rejected")))
    return judge


def _calibration_pairs(values: Values, place: str) -> list[Pair]:
    count = values.get("calibration_pairs", CALIBRATION_PAIRS)
    if count < 1:
        raise UserError(f"{place}: calibration_pairs is {count}; give a number from 1")
    field = f"{place}: calibrate"
    rows = as_dataset(trained_rows(load_rows(values["calibrate"], "train", 0, field=field), field, plain=True), field)
    return read_rows(rows.select(range(min(count, len(rows)))), _read_pair, field)


def _read_pair(row: dict[str, Any]) -> Pair:
    pair = read_pair(row)
    if pair.prompt is None:
        raise RowProblem("no column prompt", "missing")
    return pair


KINDS: dict[str, JudgeKind] = {
    "reward": JudgeKind(
        {"reward": str | list, "tie_band": float | None, "name": str | None}, _check_reward, _open_reward
    ),
    "function": JudgeKind({"function": str, "name": str | None}, _check_function, _open_function),
    "model": JudgeKind(
        {
            "model": str,
            "prompt": str | None,
            "principle": str | None,
            "bias": float,
            "calibrate": str | None,
            "calibration_pairs": int,
            "quantization": Literal["8bit", "4bit"] | None,
            "name": str | None,
        },
        _check_model,
        _open_model,
    ),
    "endpoint": JudgeKind(ENDPOINT_KEYS, check_endpoint, open_endpoint),
}
"""Kinds of judges by their key in a recipe."""
