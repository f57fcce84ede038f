"""What a call of `collect` does with its store before the first look: it is opened, and knows who answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection as Names, Sequence
from contextlib import ExitStack

from hf_align.feedback.records import Annotator
from hf_align.feedback.store import PreferenceStore, open_store
from hf_align.feedback.store.place import missing_file


def open_to_look(
    store: PreferenceStore | str | os.PathLike[str], closing: ExitStack
) -> tuple[PreferenceStore, Callable[[], PreferenceStore]]:
    """A store to look at, and what gives the one to write to once all is checked.

    So what is refused leaves no empty file behind: in place of a file that isn't there an empty store is looked at.

    Args:
        store: The store, or its file or URL.
        closing: Closes what is opened here.

    Raises:
        UserError: It can't be opened.
    """
    if isinstance(store, PreferenceStore):
        return store, lambda: store
    new = missing_file(store) is not None
    opened = open_store("sqlite://" if new else store)
    closing.callback(opened.close)

    def make() -> PreferenceStore:
        made = open_store(store, make=True)
        closing.callback(made.close)
        return made

    return opened, make if new else lambda: opened


def keep_annotators(store: PreferenceStore, annotators: Sequence[Annotator]) -> list[str]:
    """Store annotators; a line for each whose group or domains are others than they were."""
    before, lines = store.annotators(), []
    store.add(annotators=annotators)
    for each in annotators:
        old = before.get(each.name, each)
        if (old.group, old.domains) != (each.group, tuple(each.domains)):
            store.update_annotator(each.name, group=each.group, domains=each.domains)
            was, now = (
                f"group {one.group or 'none'}, domains {', '.join(one.domains) or 'all'}" for one in (old, each)
            )
            lines.append(f"annotator {each.name}: {now}; until now {was}")
    return lines


def appoint(store: PreferenceStore, names: Names[str]) -> tuple[str, ...]:
    """Have the store know people as adjudicators, and give the names of all whose answer decides.

    Who answered as a person before decides from now on; a model's name stays a model's, which the page refuses.
    """
    store.add(annotators=[Annotator(name, "adjudicator") for name in names])
    known = store.annotators()
    for name in names:
        if known[name].kind == "person":
            store.update_annotator(name, kind="adjudicator")
    return tuple(dict.fromkeys([*names, *(name for name, each in known.items() if each.kind == "adjudicator")]))
