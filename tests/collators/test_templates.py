"""Conversations under templates with the habits of those in use: thoughts, tools, closings of several tokens."""

import json
from typing import Any

import pytest
from datasets import Dataset

from hf_align.collators import check_preferences, encode_prompts, find_bad_rows, tokenize_preferences
from hf_align.collators.encoding import PairEncoder
from hf_align.errors import UserError
from tests.tiny import tiny_tokenizer

USER = "{% for m in messages %}{% if m.role != 'assistant' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
THOUGHT = (
    "{% else %}{% set c = m.content or '' %}{% set t = m.reasoning_content or '' %}{% if '</think>' in c %}"
    "{% set t = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>assistant\n"
)
END = "{{ c }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
LAST = "{% if loop.last %}<think>\n{{ t }}\n</think>\n\n{% endif %}"
FORCED = "{% if not enable_thinking|default(true) %}<think>\n\n</think>\n\n{% endif %}"
TEMPLATES = {
    # Thoughts are written in the last turn only, there even empty ones; without thinking an empty one is forced.
    "dropped from earlier turns": USER + THOUGHT + LAST + END + FORCED + "{% endif %}",
    # The same, and the generation prompt opens the thought.
    "opened, and written in the last turn": USER + THOUGHT + LAST + END + "<think>\n{% endif %}",
    # A thought is written if there is one.
    "written where there is one": (
        USER + THOUGHT + "{% if t %}<think>\n{{ t }}\n</think>\n\n{% endif %}" + END + FORCED + "{% endif %}"
    ),
    # No turn has its thought, the generation prompt opens one.
    "opened, and left out of answers": USER + THOUGHT + END + "<think>\n{% endif %}",
    # No turn has its thought, and nothing is opened: the model does that.
    "left out of answers": USER + THOUGHT + END + "{% endif %}",
    # Answers begin with the thought's end; the generation prompt opens it or has its end.
    "closed in answers": USER
    + THOUGHT
    + "</think>"
    + END
    + "{% if enable_thinking|default(false) %}<think>{% else %}</think>{% endif %}{% endif %}",
}
LEAVES_OUT = ("opened, and left out of answers", "left out of answers", "closed in answers")


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


HI = turn("user", "Hi")
ANSWERS = {
    "without thoughts": ([turn("assistant", "Yes.")], [turn("assistant", "No.")]),
    "one with a thought": ([turn("assistant", "<think>\nwell\n</think>\n\nYes.")], [turn("assistant", "No.")]),
    "thoughts alone differ": (
        [turn("assistant", "<think>\nwell\n</think>\n\nYes.")],
        [turn("assistant", "<think>\nbad\n</think>\n\nYes.")],
    ),
    "several turns": (
        [turn("assistant", "<think>\nwell\n</think>\n\nYes."), HI, turn("assistant", "Bye.")],
        [turn("assistant", "No.")],
    ),
    "beginning with a line break": ([turn("assistant", "\n\nYes.")], [turn("assistant", "No.")]),
}


def tokenizer_with(template: str) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def written(rows: Any, tokenizer: Any) -> list[tuple[str, list[str]]]:
    """The prompt and the responses of each row, as they are trained on."""
    out = tokenize_preferences(rows, tokenizer).to_list()
    texts = [[tokenizer.decode(ids) for ids in (row["prompt_ids"], *row["response_ids"])] for row in out]
    return [(prompt, responses) for prompt, *responses in texts]


@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}, {"enable_thinking": True}], ids=str)
@pytest.mark.parametrize("trait", TEMPLATES)
def test_prompt_and_response_are_what_the_template_writes_with_the_thought_in_the_response(trait: str, options: dict):
    tokenizer = tokenizer_with(TEMPLATES[trait])
    prompts = [[HI], [HI, turn("assistant", "<think>\nhm\n</think>\n\nHello."), HI]]
    pairs = [(prompt, answers) for prompt in prompts for answers in ANSWERS.values()]
    rows: list[dict[str, Any]] = [{"prompt": start, "chosen": one, "rejected": other} for start, (one, other) in pairs]
    rows = [row | {"chat_template_kwargs": options} for row in rows]
    encoded = encode_prompts(tokenizer, [row["prompt"] for row in rows], rows=rows)
    for row, ids, (start, responses) in zip(rows, encoded, written(rows, tokenizer), strict=True):
        inference = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False, **options)
        assert tokenizer.decode(ids) == inference
        assert inference.startswith(start)
        for answer, response in zip((row["chosen"], row["rejected"]), responses, strict=True):
            content, messages = answer[-1]["content"], row["prompt"] + answer
            whole = tokenizer.apply_chat_template(messages, tokenize=False, **options).removesuffix("\n")
            if trait in LEAVES_OUT and "</think>" in content:  # written all the same, as the model does
                whole = whole[: whole.rindex("assistant\n")] + f"assistant\n{content}<|im_end|>"
            assert start + response == whole
            assert content.partition("</think>")[0].removeprefix("<think>\n") in response


@pytest.mark.parametrize("trait", TEMPLATES)
def test_what_is_scored_is_what_is_trained_on(trait: str):
    encoder = PairEncoder(tokenizer_with(TEMPLATES[trait]))
    answers = [chosen for chosen, _ in ANSWERS.values()]
    rows = [{"prompt": [HI], "chosen": answer, "rejected": [turn("assistant", "Never.")]} for answer in answers]
    for answer, trained in zip(answers, tokenize_preferences(rows, encoder.tokenizer).to_list(), strict=True):
        prompt, response = encoder.prompt_and_response([HI], answer)
        assert prompt + response == trained["prompt_ids"] + trained["response_ids"][0]


def test_an_answer_that_goes_on_with_an_opened_thought_is_left_as_it_is():
    tokenizer = tokenizer_with(TEMPLATES["opened, and left out of answers"])
    answers = [[turn("assistant", f"{thought}\n</think>\n\nYes.")] for thought in ("well", "bad")]
    start, responses = written([{"prompt": [HI], "chosen": answers[0], "rejected": answers[1]}], tokenizer)[0]
    assert start.endswith("assistant\n<think>\n")
    assert responses == ["well\n</think>\n\nYes.<|im_end|>", "bad\n</think>\n\nYes.<|im_end|>"]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_beside_the_content_is_written_or_the_row_is_refused(key: str):
    row = {
        "prompt": [HI],
        "chosen": [turn("assistant", "Yes.", **{key: "well"})],
        "rejected": [turn("assistant", "Yes.", **{key: "bad"})],
    }
    for trait in TEMPLATES:
        if trait in ("left out of answers", "closed in answers"):
            with pytest.raises(UserError, match="1 row has a thought outside the content that the chat template omits"):
                written([row], tokenizer_with(TEMPLATES[trait]))[0]
        else:
            start, (response, other) = written([row], tokenizer_with(TEMPLATES[trait]))[0]
            assert (start + response).endswith("<think>\nwell\n</think>\n\nYes.<|im_end|>")
            assert "well" in response and "bad" in other
    assert find_bad_rows([row]).doubtful == {}, "the thoughts differ"


# Ends


def closing(template: str, behind: str, **changes: Any) -> Any:
    tokenizer = tiny_tokenizer(**changes)
    tokenizer.add_tokens(["<|end_response|>"])  # not special, as in one family's vocabulary
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|end|>", "<|stop|>"]})
    tokenizer.chat_template = template.replace("END", behind)
    return tokenizer


TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}END{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("behind", "end"),
    [
        ("<|end_response|><|im_end|>\n", "<|end_response|><|im_end|>"),  # two tokens, the first an ordinary one ...
        ("<|end|><|im_end|>", "<|end|><|im_end|>"),  # ... or a special one
        ("<|end|>\n{% if loop.last and not add_generation_prompt %}<|endoftext|>{% endif %}", "<|end|>"),
        ("{% if loop.last and not add_generation_prompt %}<|stop|>{% else %}<|end|>{% endif %}", "<|stop|>"),
        ("\n", "<|im_end|>"),
    ],
)
def test_a_response_ends_as_the_template_closes_a_turn(behind: str, end: str):
    tokenizer = closing(TURNS, behind)
    row = {"prompt": [HI], "chosen": [turn("assistant", "Yes.")], "rejected": [turn("assistant", "No.")]}
    assert written([row], tokenizer)[0][1] == ["Yes." + end, "No." + end]
    encoder = PairEncoder(tokenizer)
    whole = encoder.prompt_and_response([HI], "Yes.")[1]
    cut = encoder.encode(["Yes."])[0]
    assert encoder.unended(whole, conversational=True) == cut
    for sampled in ("Yes.", "Yes." + end, "Yes.<|end_response|>"[: 4 + 16 * end.startswith("<|end_r")]):
        assert encoder.ended(encoder.encode([sampled])[0], conversational=True) == whole
    assert encoder.ended(cut, conversational=False) == [*cut, tokenizer.eos_token_id]


@pytest.mark.parametrize("eos", ["<|im_end|>", "<|endoftext|>"])
def test_text_that_has_an_end_gets_no_second_one(eos: str):
    tokenizer = tiny_tokenizer(eos_token=eos)  # whose template closes turns with <|im_end|>
    ends = {
        "": eos,
        "<|im_end|>": "<|im_end|>",
        "<|im_end|>\n": "<|im_end|>",
        f"{eos} {eos}": eos,
        "<|im_end|>\n<|endoftext|>": "<|im_end|>",
        " \n": f" \n{eos}",
    }
    rows = [{"prompt": "Hi", "chosen": " yes" + end, "rejected": " no"} for end in ends]
    assert [responses for _, responses in written(rows, tokenizer)] == [
        [" yes" + end, " no" + eos] for end in ends.values()
    ]


# Tools and Arrow

TOOLS = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content or '' }}{% for call in m.tool_calls or [] %}{{ call | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
AS_TEXT = TOOLS.replace("call | tojson", "call.function.name + call.function.arguments")


def tool(name: str, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def call(name: str, arguments: Any) -> dict[str, Any]:
    return turn("assistant", "", tool_calls=[{"type": "function", "function": {"name": name, "arguments": arguments}}])


CLOCK = tool("clock", zone={"type": "string"}, hours={"type": "integer", "default": 3, "enum": [3, 4]})
MAP = tool("map", scale={"type": "number", "default": 0.5, "maximum": 2.5}, names={"type": "array", "maxItems": 4})
ROWS = [
    {
        "prompt": [HI],
        "chosen": [call("clock", {"zone": "CET", "hours": 3})],
        "rejected": [call("clock", {"hours": 4, "zone": "CET"})],
        "tools": [CLOCK],
        "chat_template_kwargs": {"mood": "calm"},
    },
    {
        "prompt": [HI],
        "chosen": [call("map", {"hours": 1.5, "scale": 2.5})],
        "rejected": [turn("assistant", "No.")],
        "tools": [MAP],
        "chat_template_kwargs": {"depth": 2},
    },
]


def as_text(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the arguments of its tool calls as JSON text, as OpenAI's interface gives them."""
    row = json.loads(json.dumps(row))
    for side in ("chosen", "rejected"):
        for one in row[side][0].get("tool_calls", []):
            one["function"]["arguments"] = json.dumps(one["function"]["arguments"])
    return row


def test_what_was_not_in_a_row_is_not_in_its_prompt_and_numbers_keep_their_kind():
    tokenizer = tokenizer_with(TOOLS)
    alone = [written([row], tokenizer)[0] for row in ROWS]
    prompt, (chosen, rejected) = alone[0]
    assert prompt.startswith(json.dumps([CLOCK])) and "null" not in prompt
    assert '"arguments": {"zone": "CET", "hours": 3}' in chosen
    assert '"arguments": {"hours": 4, "zone": "CET"}' in rejected
    assert '"arguments": {"hours": 1.5, "scale": 2.5}' in alone[1][1][0]
    # A list of rows is never padded, and keeps the order of keys.
    assert written(ROWS, tokenizer) == alone
    # Of what Arrow has padded and converted, the tool's schema says what it was. (Arrow's order of keys stays.)
    stored = Dataset.from_list(ROWS)
    assert stored[0]["chosen"][0]["tool_calls"][0]["function"]["arguments"]["hours"] == 3.0
    assert written(stored, tokenizer) == alone
    # JSON text is parsed once, of arguments, tools and options.
    texts = [as_text(row) | {name: json.dumps(row[name]) for name in ("tools", "chat_template_kwargs")} for row in ROWS]
    assert written(Dataset.from_list(texts), tokenizer) == written([as_text(row) for row in ROWS], tokenizer) == alone


def test_a_null_that_was_in_the_row_stays_where_that_can_be_known():
    row = {**ROWS[0], "chosen": [call("clock", {"zone": None, "hours": 3})]}
    tokenizer = tokenizer_with(TOOLS)
    assert '{"zone": null, "hours": 3}' in written([row, ROWS[1]], tokenizer)[0][1][0]
    assert '{"zone": null, "hours": 3}' in written(Dataset.from_list([as_text(row)]), tokenizer)[0][1][0]


def test_a_template_that_wants_arguments_as_text_gets_text():
    tokenizer = tokenizer_with(AS_TEXT)
    for rows in (ROWS[:1], [as_text(ROWS[0])]):
        assert written(rows, tokenizer)[0][1][0] == 'clock{"zone": "CET", "hours": 3}<|im_end|>'


def test_rows_that_hold_the_same_keys_are_left_as_they_are():
    data = check_preferences([ROWS[0], {**ROWS[0], "prompt": [turn("user", "Hey")]}])
    assert data[0]["tools"] == [CLOCK]


def test_tools_reach_prompts_to_sample_from_and_what_is_scored():
    tokenizer = tokenizer_with(TOOLS)
    trained = tokenize_preferences(ROWS[:1], tokenizer)[0]
    assert encode_prompts(tokenizer, [[HI]], rows=ROWS[:1])[0] == trained["prompt_ids"]
    scored = PairEncoder(tokenizer).prompt_and_response([HI], ROWS[0]["chosen"], ROWS[0])
    assert scored == (trained["prompt_ids"], trained["response_ids"][0])
