"""Layouts of texts: pairs under their usual and under other names, and HH's transcripts."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any

from hf_align.collators.rows import join_sides
from hf_align.data.layouts.layout import (
    Layout,
    Made,
    Row,
    Tally,
    Unusable,
    assistant,
    first_of,
    is_messages,
    is_number,
    is_text,
    is_texts,
    kept,
    need_number,
    need_text,
    pair,
    user,
)

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: Any) -> bool:
    """Whether it is a text with the turns of HH: "\\n\\nHuman: ...\\n\\nAssistant: ..."."""
    return isinstance(value, str) and bool(re.match(r"\s*(Human|Assistant):", value)) and "\n\nAssistant:" in value


def transcript(text: str) -> list[dict[str, str]]:
    """Messages of a transcript; an empty last turn, which only asks for an answer, is left out.

    Raises:
        Unusable: It doesn't begin with a turn, or has an empty one.
    """
    start, *parts = _TURN.split("\n\n" + text.lstrip())
    if start.strip() or not parts:
        raise Unusable("a transcript that doesn't begin with Human: or Assistant:")
    said = zip(parts[::2], parts[1::2], strict=True)
    turns = [{"role": _ROLES[role], "content": text.strip()} for role, text in said]
    if not turns[-1]["content"] and turns[-1]["role"] == "assistant":
        turns.pop()
    if not all(turn["content"] for turn in turns):
        raise Unusable("a transcript with an empty turn")
    return turns


def _hh(row: Row, tally: Tally) -> list[Made]:
    """The prompt is all that both share, up to the last answer as a rule: some pairs part earlier."""
    sides = [transcript(text) for text in need_text(row, "chosen", "rejected")]
    prompt, (chosen, rejected) = join_sides(None, sides, ("chosen", "rejected"))
    return pair(prompt, chosen, rejected, kept(row, "chosen", "rejected"))


PROMPTS = "question|query|instruction|input|prompts|user_input|problem"
"""Names of a column with the prompt, beside `prompt`."""
CHOSEN = "chosen_response|response_chosen|chosen_answer|preferred|preferred_response|accepted|better|better_response"
REJECTED = "rejected_response|response_rejected|rejected_answer|dispreferred|dispreferred_response|rejected|worse"
REJECTED = f"{REJECTED}|non_preferred|non_preferred_response|worse_response"


def prompt_of(text: str) -> Any:
    """A prompt's text, or its messages if it is a transcript."""
    return transcript(text) if is_transcript(text) else text


def _stack_exchange(row: Row, tally: Tally) -> list[Made]:
    names = ("question", "response_j", "response_k")
    prompt, chosen, rejected = (row[name] for name in names)
    return pair(prompt, chosen, rejected, kept(row, *names))


def _webgpt(row: Row, tally: Tally) -> list[Made]:
    """Scores of the two add up to 0 and say how much better one is."""
    asked = row["question"]
    question = asked["full_text"] if isinstance(asked, dict) else asked
    first, second = need_text(row, "answer_0", "answer_1")
    scores = need_number(row["score_0"], "score_0"), need_number(row["score_1"], "score_1")
    twins = [name[:-2] for name in row if name.endswith("_0") and f"{name[:-2]}_1" in row]
    each = {name: (row[f"{name}_0"], row[f"{name}_1"]) for name in twins if name != "answer"}
    others = kept(row, "question", *(f"{name}_{side}" for name in twins for side in "01"))
    if isinstance(asked, dict):
        others |= {f"question_{name}": value for name, value in asked.items() if name != "full_text"}
    preference = 0.5 * (1 + (scores[0] > scores[1]) - (scores[0] < scores[1]))
    return tally.compare(question, first, second, preference, others, margin=abs(scores[0] - scores[1]), each=each)


def _alpaca(row: Row, chosen: Any, rejected: Any) -> list[Made]:
    """Instruction and input joined by a line break; messages where there is a system prompt or a history."""
    (instruction,) = need_text(row, "instruction")
    text = f"{instruction}\n{row['input']}" if row.get("input") else instruction
    others = kept(row, "instruction", "input", "system", "history", "chosen", "rejected", "output")
    if not {"system", "history"} & set(row):
        return pair(text, chosen, rejected, others)
    turns = user(text, row.get("system"))
    past = [turn for asked, said in row.get("history") or [] for turn in (*user(asked), *assistant(said))]
    return pair([*turns[:-1], *past, turns[-1]], assistant(chosen), assistant(rejected), others)


def _alpaca_pair(row: Row, tally: Tally) -> list[Made]:
    return _alpaca(row, row["chosen"], row["rejected"])


def _alpaca_outputs(row: Row, tally: Tally) -> list[Made]:
    if len(row["output"]) != 2:
        raise Unusable("another number of outputs than two")
    chosen, rejected = row["output"]
    return _alpaca(row, chosen, rejected)


_ASKED = "question|query|input|prompt"


def _with_system(row: Row, tally: Tally) -> list[Made]:
    name = next(name for name in _ASKED.split("|") if name in row)
    others = kept(row, "system", name, "chosen", "rejected")
    return pair(user(row[name], row["system"]), assistant(row["chosen"]), assistant(row["rejected"]), others)


def _named(row: Row, prompt: str, chosen: str, rejected: str) -> list[Made]:
    """The row with its columns renamed; the others keep their names, since they are a pair's."""
    names = [next(name for name in each.split("|") if name in row) for each in (prompt, chosen, rejected)]
    others = {name: value for name, value in row.items() if name not in names}
    new = [row[name] for name in names]
    return pair(new[0], new[1], new[2], others)


def _texts(prompt: str, chosen: str, rejected: str) -> Callable[[Row], bool]:
    return lambda row: is_text(first_of(row, prompt), first_of(row, chosen), first_of(row, rejected))


def _asked_before(row: Row) -> bool:
    """A question before responses that don't begin with it themselves."""
    asked, sides = first_of(row, PROMPTS), (row["chosen"], row["rejected"])
    if not is_text(asked, *sides):
        return False
    return not asked.strip() or not all(side.lstrip().startswith(asked.strip()) for side in sides)


def _several(row: Row, tally: Tally) -> list[Made]:
    (prompt,) = need_text(row, "prompt")
    if not all(is_texts(row[name]) for name in ("chosen", "rejected")):
        raise Unusable("chosen or rejected that are no list of texts")
    others = kept(row, "prompt", "chosen", "rejected")
    sides = product(row["chosen"], row["rejected"])
    return [made for one, other in sides for made in tally.compare(prompt, one, other, 1, others)]


LAYOUTS = (
    Layout(
        "hh_transcripts",
        "Anthropic HH-RLHF",
        ("chosen", "rejected"),
        lambda row: is_transcript(row["chosen"]) and is_transcript(row["rejected"]),
        convert=_hh,
        without=("prompt",),
    ),
    Layout(
        "stack_exchange_paired",
        "Stack Exchange Paired",
        ("question", "response_j", "response_k"),
        lambda row: is_text(row["question"], row["response_j"], row["response_k"]),
        convert=_stack_exchange,
    ),
    Layout(
        "webgpt",
        "WebGPT comparisons",
        ("question", "answer_0", "answer_1", "score_0", "score_1"),
        lambda row: is_text(row["answer_0"], row["answer_1"]) and is_number(row["score_0"], row["score_1"]),
        convert=_webgpt,
    ),
    Layout(
        "alpaca_pairs",
        "LLaMA-Factory, alpaca format",
        ("instruction", "chosen", "rejected"),
        lambda row: is_text(row["instruction"], row["chosen"], row["rejected"]),
        convert=_alpaca_pair,
        without=("prompt",),
    ),
    Layout(
        "alpaca_outputs",
        "LLaMA-Factory, older alpaca format",
        ("instruction", "output"),
        lambda row: is_text(row["instruction"]) and is_texts(row["output"]) and len(row["output"]) == 2,
        convert=_alpaca_outputs,
        without=("chosen", "rejected"),
    ),
    Layout(
        "system_pairs",
        "Orca DPO pairs",
        ("system", _ASKED, "chosen", "rejected"),
        lambda row: is_text(first_of(row, _ASKED), row["chosen"], row["rejected"]) and is_text(row["system"] or ""),
        convert=_with_system,
    ),
    Layout(
        "several_pairs",
        "RewardBench 2, RM-Bench",
        ("prompt", "chosen", "rejected"),
        lambda row: is_text(row["prompt"]) and is_texts(row["chosen"]) and is_texts(row["rejected"]),
        convert=_several,
    ),
    Layout(
        "question_pairs",
        "DPO pairs with a question or query",
        (PROMPTS, "chosen", "rejected"),
        _asked_before,
        convert=lambda row, tally: _named(row, PROMPTS, "chosen", "rejected"),
        without=("prompt",),
    ),
    Layout(
        "named_pairs",
        "pairs with other names of the responses",
        (f"prompt|{PROMPTS}", CHOSEN, REJECTED),
        _texts(f"prompt|{PROMPTS}", CHOSEN, REJECTED),
        convert=lambda row, tally: _named(row, f"prompt|{PROMPTS}", CHOSEN, REJECTED),
        without=("chosen",),
    ),
    Layout(
        "triplets",
        "query, positive and negative",
        (f"anchor|prompt|{PROMPTS}", "positive", "negative"),
        _texts(f"anchor|prompt|{PROMPTS}", "positive", "negative"),
        convert=lambda row, tally: _named(row, f"anchor|prompt|{PROMPTS}", "positive", "negative"),
    ),
)


def _native(row: Row) -> bool:
    sides = (row["chosen"], row["rejected"], *([row["prompt"]] if row.get("prompt") is not None else []))
    return is_text(*sides) or all(map(is_messages, sides))


NATIVE = Layout("pairs", "hf_align, TRL", ("chosen", "rejected"), _native)
"""Returned unchanged."""
