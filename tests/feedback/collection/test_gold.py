import pytest

from hf_align.errors import UserError
from hf_align.feedback import Annotator, Answer, CollectionConfig, Prompt, Response, Task
from hf_align.feedback.collection.gold import check_form, draw_gold, read_gold, recheck

CONFIG = CollectionConfig()


def rows(name, n, **columns):
    return [{"prompt": f"{name} {k}?", "chosen": f"yes {k}", "rejected": f"no {k}", **columns} for k in range(n)]


def test_a_gold_question_knows_the_better_response_and_has_the_form_of_any_task():
    [question] = read_gold(rows("Fact", 1, domain="law"), CONFIG)["gold"]
    task, (better, worse) = question.task, question.responses
    assert (better.content, worse.content) == ("yes 0", "no 0")
    assert task.gold == float(task.first_id == better.id)
    assert (task.domain, task.wanted, task.priority, dict(task.choice)) == ("law", 3, 0.0, {})
    assert question.prompt.pool == Prompt("any").pool


def test_domains_of_gold_questions_are_named_as_those_of_other_prompts():
    [question] = read_gold(rows("Solve for x", 1), CONFIG, lambda prompt: "algebra")["gold"]
    assert question.task.domain == question.prompt.domain == "algebra"


def test_pools_take_turns_and_questions_of_the_rounds_domains_come_first():
    pools = read_gold({"a": rows("A", 4, domain="x"), "b": rows("B", 2, domain="x") + rows("C", 2, domain="y")}, CONFIG)

    def draw(count, round=0, asked=(), domains=("x",)):
        drawn = draw_gold(pools, count, asked=asked, domains=domains, round=round, seed=0)
        return [question.prompt.content[0] for question in drawn], {question.task.id for question in drawn}

    assert draw(4)[0] == ["A", "B", "A", "B"]
    assert draw(4, round=1)[0] == ["B", "A", "B", "A"]
    assert draw(2, domains=("y",))[0] == ["A", "C"]
    first = draw(5)[1]
    assert len(draw(9)[1]) == 8 and not draw(9, asked=first)[1] & first
    assert draw_gold({}, 3, asked=(), domains=(), round=5, seed=0) == []


def test_questions_that_people_could_tell_by_their_form_are_refused():
    pools = read_gold(rows("Fact", 1), CONFIG)
    check_form(pools, [Prompt("text")])
    with pytest.raises(UserError, match="text and those to collect for are messages"):
        check_form(pools, [Prompt([{"role": "user", "content": "message"}])])


def answered(task, *preferences):
    return [
        Answer(f"{task.id}{k}", task.id, f"a{k}", "answer", p, None, None, None, None, 0.0)
        for k, p in enumerate(preferences)
    ]


def test_tasks_of_one_mind_are_asked_again_up_to_their_share():
    tasks = [Task.of(Response(f"p{k}", "one", "m"), Response(f"p{k}", "two", "m")) for k in range(20)]
    by_id = {task.id: task for task in tasks}
    answers = {task.id: answered(task, *[1.0] * 3) for task in tasks[:10]}
    answers |= {task.id: answered(task, 1.0, 1.0, 0.0) for task in tasks[10:15]}
    answers |= {task.id: answered(task, *[0.5] * 3) for task in tasks[15:]}
    people = [Annotator(f"a{k}") for k in range(4)]
    again = recheck(by_id, answers, people, CONFIG, 0.25)
    assert len(again) == 5 and set(again.values()) == {4} and again.keys() <= {task.id for task in tasks[:10]}
    asked = {id: Task(**{**vars_of(task), "wanted": again.get(id, 3)}) for id, task in by_id.items()}
    assert recheck(asked, answers, people, CONFIG, 0.25) == {}, "those that are asked already count"
    assert recheck(by_id, answers, people[:3], CONFIG, 0.25) == {}, "nobody is left to ask"


def vars_of(task):
    return {name: getattr(task, name) for name in ("prompt_id", "first_id", "second_id", "wanted")}
