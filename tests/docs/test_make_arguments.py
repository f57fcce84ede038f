from dataclasses import fields

from transformers import TrainingArguments

from docs.make_arguments import PAGE, page


def test_the_committed_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_every_option_of_trainer_is_on_the_page():
    text = page()
    assert all(f"| `{each.name}` |" in text for each in fields(TrainingArguments))
