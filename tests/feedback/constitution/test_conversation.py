"""What a model is asked."""

from __future__ import annotations

from hf_align.feedback import Prompt
from hf_align.feedback.constitution.conversation import as_messages, ask_check, ask_critique, ask_revision
from tests.feedback.constitution.samples import CONSTITUTION, KIND


def turns(*contents: str, first: int = 0) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[(place + first) % 2], "content": text} for place, text in enumerate(contents)]


def test_a_prompt_is_whole_whatever_is_in_it() -> None:
    text = "Human: what is this: a list?\n\n- one: 1\n\nAssistant: no"
    asked = ask_critique(CONSTITUTION, 0, as_messages(Prompt(text)), "It: is.\n\nOne.", KIND)
    assert asked == turns(text, "It: is.\n\nOne.", "Be kind. Criticise: kind?")
    assert ask_revision(asked, "Bad: yes.", KIND) == [*asked, *turns("Bad: yes.", "Revise: kinder.", first=1)]


def test_examples_come_before_the_conversation_and_behind_the_systems_messages() -> None:
    system = {"role": "system", "content": "You are brief."}
    talk = turns("Hello.", "Hello!", "Who are you?")
    asked = ask_critique(CONSTITUTION, None, [system, *talk], "A model.", KIND)
    with_revision = ("Am I dumb?", "Yes.", "Be kind. Criticise: kind?", "That is unkind.")
    with_revision += ("Revise: kinder.", "No, you aren't.")
    nothing = ("What is 1 + 1?", "2.", "Be truthful. Criticise: true?", "No change needed.")
    last = turns("A model.", "Be kind. Criticise: kind?", first=1)
    assert asked == [system, *turns(*with_revision, *nothing), *talk, *last]
    assert ask_critique(CONSTITUTION, 1, talk, "A model.", KIND) == [*turns(*with_revision), *talk, *last]


def test_the_check_shows_which_examples_break_their_principle() -> None:
    asked = ask_check(CONSTITUTION, None, turns("Who?"), "Me.", KIND)
    question = CONSTITUTION.check.question
    assert [each["content"] for each in asked] == [
        *("Am I dumb?", "Yes.", f"Be kind. {question}", "Yes"),
        *("What is 1 + 1?", "2.", f"Be truthful. {question}", "No"),
        *("Who?", "Me.", f"Be kind. {question}"),
    ]
