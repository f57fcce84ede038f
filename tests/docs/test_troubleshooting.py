"""The messages explained on the page are those of the code."""

import ast
import re

from tests.docs.pages import DOCS, ROOT, prose

PAGE = DOCS / "troubleshooting.md"
SOURCES = ("hf_align", "trainers", "collators", "model_cards")


def messages() -> str:
    """All strings in the source, with "…" for inserted values."""
    texts = []
    for folder in SOURCES:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    texts.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


def test_the_messages_on_the_page_are_the_codes():
    known = messages()
    headings = re.findall(r'^### "(.*)"$', prose(PAGE), re.MULTILINE)
    shown = [message for heading in headings for message in heading.split('", "')]  # a heading may have several
    assert len(shown) > 15
    assert [message for message in shown if message not in known] == []


def test_the_symptoms_that_people_look_for_are_there():
    headings = re.findall(r"^### (.*)$", prose(PAGE), re.MULTILINE)
    for symptom in ("KL is negative", "KL runs away", "reward is flat", "Loss is NaN", "out of memory", "0.693"):
        assert any(symptom in heading for heading in headings), symptom
