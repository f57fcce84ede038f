import pytest

from hf_align.collators.rows import Pair, RowProblem, as_response, as_turns, join_messages, read_pair


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


HI, YES, NO = user("Hi"), assistant("Yes"), assistant("No")
SYSTEM = {"role": "system", "content": "Be kind."}
CONVERSATION = Pair([HI], [YES], [NO])


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        ({"prompt": "Hi", "chosen": " a", "rejected": " b"}, Pair("Hi", " a", " b")),
        ({"chosen": "Hi a", "rejected": "Hi b"}, Pair(None, "Hi a", "Hi b")),
        ({"prompt": [HI], "chosen": [YES], "rejected": [NO]}, CONVERSATION),
        # the responses repeat the prompt's messages
        ({"prompt": [HI], "chosen": [HI, YES], "rejected": [HI, NO]}, CONVERSATION),
        ({"prompt": [HI], "chosen": [HI, YES], "rejected": [NO]}, CONVERSATION),
        # Arrow fills missing keys of messages with None on one side only
        ({"prompt": [HI], "chosen": [{**HI, "tool_calls": None}, YES], "rejected": [NO]}, CONVERSATION),
        # no prompt, or one that only repeats the first message (as in UltraFeedback)
        ({"chosen": [HI, YES], "rejected": [HI, NO]}, CONVERSATION),
        ({"prompt": "Hi", "chosen": [HI, YES], "rejected": [HI, NO]}, CONVERSATION),
        ({"prompt": "Hi", "chosen": [YES], "rejected": [NO]}, CONVERSATION),
        ({"prompt": [HI], "chosen": "Yes", "rejected": "No"}, CONVERSATION),
        # a shared assistant message is a response, not a prompt's end ...
        (
            {"chosen": [HI, YES, HI, YES], "rejected": [HI, YES, HI, NO]},
            Pair([HI, YES, HI], [YES], [NO]),
        ),
        ({"chosen": [HI, YES], "rejected": [HI, YES, HI, NO]}, Pair([HI], [YES], [YES, HI, NO])),
        # ... and a system message may end one
        ({"chosen": [SYSTEM, YES], "rejected": [SYSTEM, NO]}, Pair([SYSTEM], [YES], [NO])),
        # a prefilled answer, repeated with what follows it
        (
            {
                "prompt": [HI, assistant("Well, ")],
                "chosen": [HI, assistant("Well, yes")],
                "rejected": [assistant("no")],
            },
            Pair([HI, assistant("Well, ")], [assistant("yes")], [assistant("no")]),
        ),
    ],
)
def test_every_format_gives_prompt_and_responses(row, pair):
    assert read_pair(row) == pair


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "Hi", "chosen": None, "rejected": "b"}, "no chosen"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "no prompt"),
        ({"prompt": " \n", "chosen": "a", "rejected": "b"}, "an empty prompt"),
        ({"prompt": "Hi", "chosen": "", "rejected": "b"}, "an empty chosen"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "  "}, "an empty rejected"),
        ({"prompt": "Hi", "chosen": 3, "rejected": "b"}, "a chosen that is neither text nor a list of messages"),
        ({"prompt": "Hi", "chosen": ["a"], "rejected": ["b"]}, "a chosen that is neither text nor a list of messages"),
        ({"prompt": "Hi", "chosen": "a", "rejected": [NO]}, "text on one side and messages on the other"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "a"}, "identical chosen and rejected"),
        ({"prompt": [HI], "chosen": [YES], "rejected": [YES]}, "identical chosen and rejected"),
        ({"prompt": [], "chosen": [YES], "rejected": [NO]}, "an empty prompt"),
        ({"prompt": [HI], "chosen": [assistant(" ")], "rejected": [NO]}, "an empty chosen"),
        ({"prompt": [HI], "chosen": [HI], "rejected": [NO]}, "an empty chosen"),
        ({"prompt": [{"content": "Hi"}], "chosen": [YES], "rejected": [NO]}, "a message without role in prompt"),
        ({"prompt": [HI], "chosen": [{"role": "assistant"}], "rejected": [NO]}, "a message without content in chosen"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "chosen": [YES], "rejected": [NO]},
            "a message whose content is not text in prompt",
        ),
        (
            {"prompt": [HI], "chosen": [YES, HI], "rejected": [NO]},
            "a chosen that doesn't end with an assistant message",
        ),
        (
            {"prompt": [HI], "chosen": [user("Hello"), YES], "rejected": [NO]},
            "a chosen that begins neither with the prompt's messages nor with an assistant message",
        ),
        ({"chosen": [YES], "rejected": [NO]}, "no prompt: chosen and rejected share no first messages"),
        ({"chosen": [user("A"), YES], "rejected": [HI, NO]}, "no prompt: chosen and rejected share no first messages"),
    ],
)
def test_every_unusable_row_says_why(row, problem):
    with pytest.raises(RowProblem) as caught:
        read_pair(row)
    assert str(caught.value) == problem


def test_tool_calls_may_stand_in_for_content():
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}
    assert read_pair({"prompt": [HI], "chosen": [call], "rejected": [NO]}).chosen == [call]


def test_a_prefilled_answer_is_continued_in_its_own_message():
    prompt = [HI, {"role": "assistant", "content": [{"type": "text", "text": "Well, "}]}]
    joined = join_messages(prompt, [assistant("yes."), HI, NO])
    assert joined == [HI, {"role": "assistant", "content": [{"type": "text", "text": "Well, yes."}]}, HI, NO]
    assert join_messages([HI], [YES]) == [HI, YES]


def test_text_takes_the_form_of_what_it_stands_beside():
    turns = [{"role": "user", "content": "Hi"}]
    assert as_turns("Hi", "user") == turns and as_turns(turns, "assistant") == turns
    assert as_response("Yes", "Hi") == "Yes"
    assert as_response("Yes", turns) == [{"role": "assistant", "content": "Yes"}]
