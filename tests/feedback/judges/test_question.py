"""The question about two responses."""

import pytest

from hf_align.errors import UserError
from hf_align.feedback.judges.question import BY_PRINCIPLE, QUESTION, Question


def test_a_template_shows_texts_messages_and_dialogues():
    question = Question("{prompt}|{first}|{second}")
    assert question.text("Why {so}?", "a", "b") == "Why {so}?|a|b"
    dialogue = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    answer = [{"role": "assistant", "content": "a"}]
    assert question.text(dialogue, answer, "b") == "User: Hi\n\nAssistant: Hello|a|b"


def test_the_default_asks_by_the_principle_where_there_is_one():
    assert Question().template == QUESTION and Question(principle="Be kind.").template == BY_PRINCIPLE
    assert "by this principle: Be kind." in Question(principle="Be kind.").text("p", "a", "b")
    assert Question().is_default and not Question("{prompt}{first}{second}").is_default


@pytest.mark.parametrize(
    ("template", "principle", "message"),
    [
        ("{prompt} {first}", None, r"no \{second\}; add it where the response called B goes"),
        ("{prompt} {first} {second} {principel}", "Be kind.", r"did you mean \{principle\}\?"),
        ("{prompt} {first} {second} {x}", None, r"valid are \{prompt\}"),
        ("{prompt} {first} {second!r}", None, "is no field"),
        ("{prompt} {first} {second} {", None, "isn't well formed"),
        ("{prompt} {first} {second} {principle}", None, "none is given"),
        ("{prompt} {first} {second}", "Be kind.", "no {principle} to put"),
        (None, "  ", "give a sentence to judge by"),
    ],
)
def test_a_template_without_its_fields_is_refused(template, principle, message):
    with pytest.raises(UserError, match=message):
        Question(template, principle)
