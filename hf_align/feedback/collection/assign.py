"""Who is asked about a task: annotators of its domain, those with the fewest tasks first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hf_align.feedback.records import Annotator, Answer, Task
from hf_align.feedback.store.queue import draw


def suits(annotator: Annotator, domain: str | None) -> bool:
    """Whether somebody answers tasks of a domain: of any, if they name none or the task has none."""
    return not annotator.domains or domain is None or domain in annotator.domains


def assign_tasks(
    wanted: Mapping[str, int],
    tasks: Iterable[Task],
    events: Iterable[Answer],
    annotators: Sequence[Annotator],
    *,
    per_task: int,
    seed: int,
) -> dict[str, list[str]]:
    """Divide tasks among annotators.

    Each task has an order of the annotators of its domain: first those who stand among the first `per_task` of the
    fewest earlier tasks, among equals as drawn by a hash. It goes to the first of them who neither answered nor skipped
    it, as many as answers are missing. So whom a task goes to hangs on nothing that happens to other tasks, and a run
    that was killed asks whom it would have asked. Models are then asked; people take tasks from the store's queue, and
    their names only leave them their part beside models.

    Args:
        wanted: Answers wanted in all, by task, of the tasks to assign.
        tasks: All tasks that are no gold questions, in their order.
        events: Answers and skips that stand.
        annotators: Who there is.
        per_task: Annotators that a task is first given to.
        seed: Of the hash.

    Returns:
        Names by task: as many as answers are missing, or fewer if nobody else is there.

    Example:
        >>> from hf_align.feedback import Annotator, Prompt, Response, Task
        >>> from hf_align.feedback.collection.assign import assign_tasks
        >>> prompt = Prompt("What is 2 + 2?", domain="maths")
        >>> task = Task.of(Response(prompt.id, "4", "a"), Response(prompt.id, "5", "b"), domain="maths")
        >>> people = [Annotator("anna", domains=("law",)), Annotator("ben"), Annotator("cleo", domains=("maths",))]
        >>> sorted(assign_tasks({task.id: 3}, [task], [], people, per_task=3, seed=0)[task.id])
        ['ben', 'cleo']
    """
    done: dict[str, set[str]] = {}
    given, load = Counter[str](), Counter[str]()
    for event in events:
        done.setdefault(event.task_id, set()).add(event.annotator)
        given[event.task_id] += event.kind == "answer"
    assigned: dict[str, list[str]] = {}
    for task in tasks:
        fit = [each.name for each in annotators if suits(each, task.domain)]
        fit.sort(key=lambda name: (load[name], draw(seed, "assign", task.id, name)))
        load.update(fit[:per_task])
        if task.id in wanted:
            left = [name for name in fit if name not in done.get(task.id, ())]
            assigned[task.id] = left[: max(0, wanted[task.id] - given[task.id])]
    return assigned
