"""Whether a store's export holds what people clicked, no more and no less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.feedback.browser.ledger import Entry
from benchmarks.feedback.browser.tasks import Question, number_in
from hf_align.feedback import PreferenceStore

Vote = tuple[str, int, str | None, str | None, float | None, str | None]
"""Person, task's number, text preferred or "tie", text on the left, confidence and reason."""


def standing_votes(entries: Mapping[str, Sequence[Entry]]) -> set[Vote]:
    """Answers that weren't taken back."""
    votes: set[Vote] = set()
    for person, events in entries.items():
        last: dict[int, Entry | None] = {}
        for event in events:
            last[event.task] = None if event.kind == "undo" else event
        for task, event in last.items():
            if event is not None and event.kind == "answer":
                votes.add((person, task, event.better, event.left, event.confidence, event.reason))
    return votes


def compare_export(
    store: PreferenceStore, entries: Mapping[str, Sequence[Entry]], questions: Sequence[Question]
) -> dict[str, int]:
    """Differences between the export by majority and what people did.

    Args:
        store: The store.
        entries: What people did.
        questions: The tasks.

    Returns:
        Votes that are `missing` and `unmade`, and rows of the `wrong_order`: rejected has more votes than chosen, or of
        a gold question the text that is known to be worse stands as chosen.
    """
    data: Any = store.export(method="majority", ties="keep", open_tasks="keep", gold=True, names=True)
    clicked, exported = standing_votes(entries), set[Vote]()
    wrong = 0
    for row in data:
        number = number_in(row["prompt"])
        texts = {1.0: row["chosen"], 0.5: "tie", 0.0: row["rejected"]}
        assert {row["chosen"], row["rejected"]} == {questions[number].chosen, questions[number].rejected}
        for answer in row["answers"]:
            left = None if answer["left"] is None else row[answer["left"]]
            vote = (answer["annotator"], number, texts[answer["answer"]], left, answer["confidence"], answer["reason"])
            exported.add(vote)
        votes = [vote[2] for vote in clicked if vote[1] == number]
        if row["provenance"]["gold"]:
            wrong += row["chosen"] != questions[number].chosen
        elif row["weight"] == 1:  # a tie by the commonest answer stands there in both orders, with half the weight
            wrong += votes.count(row["chosen"]) < votes.count(row["rejected"])
    return {"missing": len(clicked - exported), "unmade": len(exported - clicked), "wrong_order": wrong}
