import pytest

from hf_align.data.inspection.turns import begins_with_role, goes_on, out_of_order


def turns(*roles):
    return [{"role": role, "content": role} for role in roles]


@pytest.mark.parametrize(
    "text",
    [
        "Yes, it is.\n\nHuman: And now?\n\nAssistant: It still is.",
        "Yes.\nUser: why",
        "Yes.\n**User**: why",
        "Yes.\n\n### Instruction:\nNow count.",
        "Answer 1: It is.\n\nAnswer 2: It isn't.",
        "**Response A**\nIt is.\n\n**Response B**\nIt isn't.",
    ],
)
def test_responses_that_go_on_with_another_turn_or_answer(text):
    assert goes_on(text, text, "The dialogue is long; is it so?")
    assert not goes_on(text, text, "Write me a short dialogue about it.")


@pytest.mark.parametrize(
    "text",
    [
        "Yes.<|im_end|>\n<|im_start|>user\nWhy?",
        "Yes.<|eot_id|><|start_header_id|>user<|end_header_id|>",
        "Yes. [INST] Why? [/INST]",
        "Yes.<end_of_turn>\n<start_of_turn>user\nWhy?",
    ],
)
def test_a_mark_of_a_template_is_never_meant(text):
    assert goes_on(text, text, "Write me a short dialogue about it.")


@pytest.mark.parametrize(
    "text",
    [
        "Yes, it is.\n\nSecond paragraph.",
        "The user: a person who uses something.",
        "To the user:\nIt is fine.",
        "# Heading\n\n## Inputs\n\nText",
        "Answer 1 is right.",
        "Every human: listen!",
    ],
)
def test_ordinary_responses_do_not(text):
    assert not goes_on(text, text, "Is it so?")


def test_messages_of_a_user_in_a_response_are_another_turn():
    assert goes_on(turns("assistant", "user", "assistant"), "", "")
    assert not goes_on(turns("assistant", "tool", "assistant"), "", "")


@pytest.mark.parametrize(
    "text", ["Human: hi", "\n\nAssistant: Yes.", "**User:** a", "### Response:\nYes", "<|im_start|>x"]
)
def test_texts_that_begin_with_a_role(text):
    assert begins_with_role(text)


@pytest.mark.parametrize("text", ["Humans: a history", "Assistants help.", "The assistant: she helps", "# Response"])
def test_texts_that_begin_with_something_like_one(text):
    assert not begins_with_role(text)


@pytest.mark.parametrize(
    ("prompt", "response", "problem"),
    [
        (("user",), ("assistant",), ""),
        (("system", "user", "assistant", "user"), ("assistant",), ""),
        (("assistant", "user"), ("assistant",), ""),  # a greeting
        (("user", "assistant"), ("assistant",), ""),  # it continues the last message
        (("user", "assistant", "tool", "tool"), ("assistant",), ""),
        (("user", "user"), ("assistant",), "two user messages in a row"),
        (("user", "system", "user"), ("assistant",), "a system message later on"),
        (("user", "assistant", "assistant", "user"), ("assistant",), "two assistant messages in a row"),
        (("human",), ("assistant",), "the role 'human'"),
        (("user",), ("assistant", "assistant"), "two assistant messages in a row"),
    ],
)
def test_the_order_of_roles(prompt, response, problem):
    assert out_of_order(turns(*prompt), turns(*response)) == problem


def test_an_assistant_may_speak_again_after_its_own_tool_call():
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    assert out_of_order([*turns("user"), call, *turns("assistant", "user")], turns("assistant")) == ""
