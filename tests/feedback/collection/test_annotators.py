import math
from typing import Any

import pytest
import torch

from hf_align.errors import UserError
from hf_align.feedback import FunctionJudge, PreferenceStore, Prompt, Response, Task
from hf_align.feedback.collection.annotators import (
    FunctionAnnotator,
    JudgeAnnotator,
    Question,
    RewardAnnotator,
    ask_model,
)


@pytest.fixture
def store():
    store = PreferenceStore("sqlite://")
    yield store
    store.close()


def make_questions(store, n=1):
    questions, responses = [], []
    for number in range(n):
        prompt = Prompt(f"Prompt {number}")
        pair = [Response(prompt.id, text, "m") for text in (f"good {number}", f"a bad one {number}")]
        task = Task.of(*pair)
        by_id = {response.id: response for response in pair}
        questions.append(Question(task, prompt, by_id[task.first_id], by_id[task.second_id]))
        responses += pair
    store.add(prompts=[each.prompt for each in questions], responses=responses, tasks=[each.task for each in questions])
    return questions


def ask(store, model, questions):
    return list(ask_model(store, model, questions, {}))


def length(prompts, responses):
    return [float(len(response)) for response in responses]


def test_functions_see_both_orders_and_their_answers_are_turned_back_once(store):
    questions, seen = make_questions(store, 24), []

    def prefers_good(prompt, first, second):
        seen.append(first.startswith("good"))
        return "first" if first.startswith("good") else "second"

    ask(store, FunctionAnnotator("judge", prefers_good), questions)
    assert 5 < sum(seen) < 19
    for answer, question in zip(store.answers(), questions, strict=True):
        assert answer.preference == float(question.first.content.startswith("good"))
        shown_first = question.first if answer.left == "first" else question.second
        assert seen[questions.index(question)] == shown_first.content.startswith("good")


@pytest.mark.parametrize(
    ("returned", "stored"), [("tie", 0.5), (0.5, 0.5), (True, None), ("first", None), (0.25, None), (None, None)]
)
def test_what_a_function_may_return(store, returned, stored):
    ask(store, FunctionAnnotator("judge", lambda *texts: returned), make_questions(store))
    [event] = store.events()
    if returned is None:
        assert (event.kind, event.preference) == ("skip", None)
        return
    words: dict[Any, Any] = {"tie": 0.5, "first": 1.0}
    value = float(words.get(returned, returned))
    assert event.preference == (stored or (value if event.left == "first" else 1 - value))


@pytest.mark.parametrize("returned", ["both", 1.5, -0.1, math.nan, [1.0]])
def test_other_returns_are_refused_with_the_task(store, returned):
    [question] = make_questions(store)
    with pytest.raises(UserError, match=f"'judge' failed on task {question.task.id} .prompt 'Prompt 0'.*it returned"):
        ask(store, FunctionAnnotator("judge", lambda *texts: returned), [question])


def test_a_failing_function_keeps_all_answers_before_it_and_goes_on_from_there(store):
    questions, broken = make_questions(store, 4), [True]

    def fails(prompt, first, second):
        if prompt == "Prompt 2" and broken[0]:
            raise RuntimeError("no network")
        return 1.0

    judge = FunctionAnnotator("judge", fails)
    with pytest.raises(UserError, match=rf"{questions[2].task.id}.*RuntimeError: no network\. Its earlier"):
        ask(store, judge, questions)
    assert len(list(store.answers())) == 2
    broken[0] = False
    assert ask(store, judge, questions) == [1, 2, 3, 4]
    assert len(list(store.answers())) == 4


def test_an_interrupted_function_keeps_every_answer_that_it_gave(store):
    given = []

    def interrupted(prompt, first, second):
        if len(given) == 2:
            raise KeyboardInterrupt
        given.append(prompt)
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        ask(store, FunctionAnnotator("judge", interrupted), make_questions(store, 4))
    assert len(list(store.answers())) == 2


@pytest.mark.parametrize(
    ("returned", "stored", "orders"), [("first", 0.5, [1.0, 0.0]), (0.5, 0.5, [0.5, 0.5]), (None, None, [None, None])]
)
def test_a_judge_asked_in_both_orders_has_no_left_side_and_what_it_said_is_kept(store, returned, stored, orders):
    ask(store, JudgeAnnotator("judge", FunctionJudge(lambda *texts: returned)), make_questions(store))
    [event] = store.events()
    assert (event.kind, event.preference, event.left) == ("skip" if stored is None else "answer", stored, None)
    assert event.details == {"orders": orders}


def test_a_judge_prefers_the_tasks_first_response_where_it_likes_that(store):
    questions = make_questions(store, 8)
    good = FunctionJudge(lambda prompt, first, second: 0.9 if first.startswith("good") else 0.2)
    ask(store, JudgeAnnotator("judge", good), questions)
    for answer, question in zip(store.answers(), questions, strict=True):
        is_first = question.first.content.startswith("good")
        assert answer.preference == pytest.approx(0.85 if is_first else 0.15)
        assert answer.details["orders"] == pytest.approx([0.9, 0.8] if is_first else [0.2, 0.1])
    with pytest.raises(UserError, match="'reward' is no judge"):
        JudgeAnnotator("judge", "reward")  # type: ignore[arg-type]


def test_a_reward_answers_with_the_probability_of_its_score_difference(store):
    questions = make_questions(store, 3)
    ask(store, RewardAnnotator("reward", lambda prompts, texts: [x / 3 for x in length(prompts, texts)]), questions)
    for answer, question in zip(store.answers(), questions, strict=True):
        difference = (len(question.first.content) - len(question.second.content)) / 3
        assert answer.preference == pytest.approx(1 / (1 + math.exp(-difference)), abs=1e-6)
        assert answer.left is None


@pytest.mark.parametrize(("band", "tied"), [(0, False), (4.9, False), (5, True), (6, True)])
def test_a_reward_with_a_band_is_sure_outside_and_undecided_inside(store, band, tied):
    [question] = make_questions(store)  # lengths differ by 5
    ask(store, RewardAnnotator("reward", length, tie_band=band), [question])
    [answer] = store.answers()
    longer = float(len(question.first.content) > len(question.second.content))
    assert answer.preference == (0.5 if tied else longer)


@pytest.mark.parametrize("weight", [-0.5, 2.0])
def test_the_weight_of_a_reward_scales_its_log_odds_and_its_sign_turns_them(store, weight):
    [question] = make_questions(store)
    ask(store, RewardAnnotator("reward", [(weight, length)]), [question])
    difference = weight * (len(question.first.content) - len(question.second.content))
    [answer] = store.answers()
    assert answer.preference == pytest.approx(1 / (1 + math.exp(-difference)), abs=1e-6)


@pytest.mark.parametrize("given", ["model", "model's folder", "ensemble", "ensemble's folder"])
def test_a_reward_model_answers_with_its_normalised_scores_brought_to_log_odds(store, rewards, given):
    ensemble, folder = rewards
    members = ensemble.members[:1] if given.startswith("model") else ensemble.members
    named = {"model": members[0], "model's folder": folder / "0", "ensemble's folder": str(folder / "both")}
    reward = named.get(given, ensemble)
    questions = make_questions(store, 3)
    ask(store, RewardAnnotator("reward", reward), questions)
    sides = [side for each in questions for side in (each.first, each.second)]
    prompts = [each.prompt.content for each in questions for _ in "ab"]
    given = [torch.tensor(member.score(prompts, [side.content for side in sides])) for member in members]
    scores = torch.stack(given).sum(0)
    scale = sum(member.normalization.std for member in members) / len(members)
    difference = (scores / len(members)).reshape(-1, 2) @ torch.tensor([1.0, -1.0]) * scale
    answers = [answer.preference for answer in store.answers()]
    assert answers == pytest.approx(difference.sigmoid().tolist(), abs=1e-4)
    assert max(abs(answer - 0.5) for answer in answers) > 1e-3 and scale != pytest.approx(1)


def test_a_reward_that_fails_on_one_task_keeps_the_answers_before_it(store):
    questions = make_questions(store, 4)

    def fails(prompts, responses):
        return [math.nan if prompt == "Prompt 2" else 1.0 for prompt in prompts]

    with pytest.raises(UserError, match=f"'reward' failed on task {questions[2].task.id}"):
        ask(store, RewardAnnotator("reward", fails), questions)
    assert len(list(store.answers())) == 2


def test_a_band_below_zero_is_refused():
    with pytest.raises(UserError, match="tie_band is -1"):
        RewardAnnotator("reward", length, tie_band=-1)
