import random
from collections import Counter

from hf_align.feedback.collection.assign import assign_tasks
from hf_align.feedback.records import Annotator, Answer, EventKind, Response, Task


def make_tasks(n, domain=None):
    return [Task.of(Response(f"p{k}", "one", "m"), Response(f"p{k}", "two", "m"), domain=domain) for k in range(n)]


def event(task, who, kind: EventKind = "answer"):
    return Answer(f"{who}/{task.id}", task.id, who, kind, 1.0, None, None, None, None, 0.0)


def names(count):
    return [Annotator(f"a{number}") for number in range(count)]


def assign(tasks, events, annotators, wanted=3):
    return assign_tasks({task.id: wanted for task in tasks}, tasks, events, annotators, per_task=3, seed=0)


def test_tasks_are_shared_evenly_among_all_who_answer_their_domain():
    tasks = make_tasks(100)
    assigned = assign(tasks, [], names(7))
    load = Counter(name for chosen in assigned.values() for name in chosen)
    assert load.total() == 300 and max(load.values()) - min(load.values()) <= 1
    assert all(len(set(chosen)) == 3 for chosen in assigned.values())


def test_only_annotators_of_a_domain_get_its_tasks_and_a_specialist_is_spared_others():
    people = [Annotator("law", domains=("law",)), Annotator("maths", domains=("maths", "law")), Annotator("all")]
    [law], [maths], [free] = make_tasks(1, "law"), make_tasks(1, "maths"), make_tasks(1)
    assigned = [sorted(assign([task], [], people)[task.id]) for task in (law, maths, free)]
    assert assigned == [["all", "law", "maths"], ["all", "maths"], ["all", "law", "maths"]]


def test_whom_a_task_goes_to_hangs_on_no_other_tasks_answers():
    tasks, people = make_tasks(30), names(6)
    before = assign(tasks, [], people)
    done = [event(task, name) for task in tasks for name in before[task.id]]
    random.Random(0).shuffle(done)
    part = done[:40]
    after = assign(tasks, part, people)
    answered = {(each.task_id, each.annotator) for each in part}
    assert after == {id: [name for name in chosen if (id, name) not in answered] for id, chosen in before.items()}


def test_a_skip_passes_the_task_on_and_nobody_is_asked_twice():
    [task], people = make_tasks(1), names(5)
    first = assign([task], [], people)[task.id]
    events = [event(task, first[0], "skip"), event(task, first[1])]
    then = assign([task], events, people)[task.id]
    assert then[0] == first[2] and len(then) == 2 and not {*then} & {*first[:2]}
    everybody = [event(task, each.name, "skip") for each in people]
    assert assign([task], everybody, people)[task.id] == []


def test_a_further_annotator_is_one_who_was_not_asked_yet():
    [task], people = make_tasks(1), names(5)
    first = assign([task], [], people)[task.id]
    events = [event(task, name) for name in first]
    [fourth] = assign([task], events, people, wanted=4)[task.id]
    assert fourth not in first
