import hashlib
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from hf_align.errors import UserError
from hf_align.feedback import (
    Annotator,
    CollectionConfig,
    FunctionAnnotator,
    PreferenceStore,
    RewardAnnotator,
    collect,
    open_store,
)
from hf_align.feedback.store.store import PreferenceStore as Store
from hf_align.progress import Silent
from tests.tiny import tiny_model, tiny_tokenizer

SIZES: dict[str, Any] = {"responses_per_prompt": 3, "models_per_prompt": 3, "min_responses": 2}
SMALL = CollectionConfig(batch_size=4, gold_share=0, **SIZES)
ROWS = [{"prompt": f"Question number {number}?", "domain": "ab"[number % 2]} for number in range(40)]
GOLD = [
    {"prompt": f"Known {number}?", "chosen": "yes, right", "rejected": "wrong", "domain": "a"} for number in range(9)
]


class Killed(BaseException):
    """Stands for the end of the process."""


class Clock:
    """Seconds that pass with every look; the store looks at the beginning of each transaction that writes."""

    def __init__(self, last=None):
        self.looks, self.last = 0, last

    def __call__(self):
        self.looks += 1
        if self.looks == self.last:
            raise Killed
        return 1000.0 + self.looks


def number_of(*of):
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:4], "big")


def writer(name, words=12, seen=None):
    """A model that writes other words for each prompt, and each time again if it is given a counter."""

    def write(prompts):
        texts = []
        for prompt in prompts:
            if seen is not None:
                seen[prompt] += 1
            time = 0 if seen is None else seen[prompt]
            texts.append(" ".join(f"w{number_of(name, prompt, time, k) % 10**6}" for k in range(words)))
        return texts

    write.__name__ = name
    return write


MODELS = [writer("a"), writer("b", 9), writer("c", 15)]


def judge(name, wrong=(), domains=()):
    """Prefers the text with the larger digest; of some prompts the other one."""

    def prefer(prompt, first, second):
        better = number_of(first) > number_of(second)
        if first.startswith(("yes", "wrong")):
            better = first.startswith("yes")
        return "first" if better != (prompt in wrong) else "second"

    return FunctionAnnotator(name, prefer, domains=domains)


JUDGES = [judge("x"), judge("y"), judge("z")]


@pytest.fixture
def store():
    store = PreferenceStore("sqlite://", clock=Clock())
    yield store
    store.close()


def content(store):
    """All that a store holds but times."""
    answers = {(each.id, each.task_id, each.annotator, each.preference, each.left) for each in store.events()}
    tasks = list(store.tasks().values())
    return set(store.prompts()), list(store.responses()), tasks, answers


def test_by_default_a_comparison_has_three_answers_of_which_most_agree(store):
    models = [writer("a", seen=Counter()), writer("b", seen=Counter())]
    result = collect(store, CollectionConfig(gold_share=0), models, JUDGES, 7, prompts=ROWS)
    assert result.enough and result.valid == 7 and not result.open
    tasks = store.tasks()
    assert len(tasks) == 7 and {task.wanted for task in tasks.values()} == {3}
    assert Counter(answer.task_id for answer in store.answers()) == dict.fromkeys(tasks, 3)
    assert all(task.choice["method"] == "random" and task.choice["round"] == 0 for task in tasks.values())
    assert all(task.choice["wanted"] == 3 for task in tasks.values())
    assert {task.domain for task in tasks.values()} <= {"a", "b"}
    texts = store.responses()
    for id, verdict in result.verdicts.items():
        first, second = texts[tasks[id].first_id].content, texts[tasks[id].second_id].content
        assert verdict.label == float(number_of(first) > number_of(second))


def test_rounds_go_on_until_there_are_enough_and_a_second_call_adds_nothing(store):
    config = replace(SMALL, batch_size=1)
    first = collect(store, config, MODELS, JUDGES, 7, prompts=ROWS)
    assert first.enough and first.rounds == 3  # of 3, 3 and 1 pairs
    before = content(store)
    assert str(collect(store, config, MODELS, JUDGES, 7, prompts=ROWS)) == str(first)
    assert content(store) == before
    assert collect(store, config, MODELS, JUDGES, 8, prompts=ROWS).valid == 8


def test_prompts_that_are_used_up_end_the_collection_short(store):
    result = collect(store, replace(SMALL, batch_size=1), MODELS, JUDGES, 50, prompts=ROWS[:2])
    assert not result.enough and result.valid == 6


def test_where_annotators_differ_others_are_asked_and_what_stays_undecided_is_open(store):
    wrong = [row["prompt"] for row in ROWS]
    judges = [*JUDGES[:2], judge("opposite", wrong), judge("fourth"), judge("fifth", wrong), judge("sixth", wrong)]
    result = collect(store, SMALL, MODELS, judges, 50, prompts=ROWS[:3])
    given = Counter(answer.task_id for answer in store.answers())
    assert set(given.values()) <= {3, 4, 5, 6} and max(given.values()) > 3
    assert not result.enough and result.valid + len(result.open) == len(store.tasks()) and not result.waiting
    for id in result.open:
        votes = Counter(answer.preference for answer in store.answers() if answer.task_id == id)
        assert given[id] == 6 and max(votes.values()) / 6 < 0.7
    for id, verdict in result.verdicts.items():
        assert max(verdict.votes) / sum(verdict.votes) >= 0.7 and sum(verdict.votes) == given[id]


def test_a_task_that_nobody_is_left_to_answer_is_open(store):
    judges = [*JUDGES[:2], judge("opposite", [row["prompt"] for row in ROWS])]
    result = collect(store, SMALL, MODELS, judges, 3, prompts=ROWS[:1])
    assert result.valid == 0 and len(result.open) == 3
    decided = collect(store, SMALL, MODELS, [*judges, judge("fourth")], 3, prompts=ROWS[:1])
    assert decided.valid == 3 and {sum(verdict.votes) for verdict in decided.verdicts.values()} == {4}


def test_a_skip_passes_a_task_on(store):
    silent = FunctionAnnotator("silent", lambda *texts: None)
    result = collect(store, SMALL, MODELS, [*JUDGES, silent], 5, prompts=ROWS)
    assert result.enough and {sum(verdict.votes) for verdict in result.verdicts.values()} == {3}
    assert result.annotators["silent"].skipped > 0 == result.annotators["silent"].answers


def test_a_tie_stays_a_tie(store):
    undecided = [FunctionAnnotator(name, lambda *texts: "tie") for name in "xyz"]
    result = collect(store, SMALL, MODELS, undecided, 2, prompts=ROWS)
    assert result.ties == result.valid == 2
    for verdict in result.verdicts.values():
        assert (verdict.label, verdict.votes) == (0.5, (0, 3, 0)) and verdict.strength == pytest.approx(0)


def test_rewards_and_functions_answer_side_by_side(store):
    def size(prompts, responses):
        return [number_of(response) / 1e9 for response in responses]

    annotators = [RewardAnnotator("size", size), *JUDGES[:2]]
    result = collect(store, SMALL, MODELS, annotators, 4, prompts=ROWS)
    assert result.enough and result.annotators["size"].with_verdict == 1
    assert all(0 < answer.preference < 1 for answer in store.answers() if answer.annotator == "size")


# People


def answer_all(store, names, *, seconds=20.0, prefer=None, most=100):
    """People at the page: each takes and answers tasks until none is left."""
    count, texts = 0, store.responses()
    for name in names:
        while count < most and (lease := store.lease(name, gold_share=0.1)) is not None:
            store.clock.looks += seconds
            first, second = texts[lease.task.first_id].content, texts[lease.task.second_id].content
            better = number_of(first) > number_of(second)
            if first.startswith(("yes", "wrong")):
                better = first.startswith("yes")
            preference = float(better) if prefer is None else prefer(name, lease, better)
            store.answer(lease.id, preference, id=f"{name}/{lease.id}", confidence=0.8)
            count += 1
    return count


def test_without_waiting_people_get_tasks_and_the_call_returns_what_is_open(store):
    people = ["anna", "ben", "cleo"]
    result = collect(store, SMALL, MODELS, people, 4, prompts=ROWS, wait=False)
    assert (result.valid, len(result.waiting), len(store.tasks())) == (0, 4, 4)
    assert len(collect(store, SMALL, MODELS, people, 4, prompts=ROWS, wait=False).waiting) == 4
    assert len(store.tasks()) == 4
    assert answer_all(store, people) == 12
    assert collect(store, SMALL, MODELS, people, 4, prompts=ROWS, wait=False).enough


def test_the_loop_waits_for_people_and_asks_more_of_them_where_they_differ(store):
    people = ["anna", "ben", "cleo", "dora"]
    looks = []

    def pause():
        looks.append(len(list(store.answers())))
        answer_all(store, people, prefer=lambda name, lease, better: float(better != (name == "ben")), most=4)

    result = collect(store, SMALL, MODELS, people, 6, prompts=ROWS[:2], pause=pause)
    assert result.enough and len(looks) > 3 and looks == sorted(looks)
    assert {sum(verdict.votes) for verdict in result.verdicts.values()} <= {3, 4}
    assert 4 in {sum(verdict.votes) for verdict in result.verdicts.values()}


def test_while_nothing_is_answered_a_waiting_loop_reads_neither_tasks_nor_answers():
    read = Counter()

    class Counting(Store):
        def tasks(self):
            read["tasks"] += 1
            return super().tasks()

    store, people, reads = Counting("sqlite://", clock=Clock()), ["anna", "ben", "cleo"], []

    def pause():
        reads.append(read["tasks"])
        if len(reads) == 5:
            answer_all(store, people)

    assert collect(store, SMALL, MODELS, people, 3, prompts=ROWS, pause=pause).enough
    assert len(set(reads)) == 1 and read["tasks"] > reads[-1]
    store.close()


class Lines(Silent):
    """Keeps the lines of progress."""

    def __init__(self):
        self.lines = []

    def line(self, text, style=""):
        self.lines.append(text)


def test_the_line_that_says_where_to_answer_hides_the_stores_password(store):
    store.url = "postgresql+psycopg://anna:secret@localhost/prefs"  # as if opened there
    people, said = ["anna", "ben", "cleo"], Lines()

    def pause():
        answer_all(store, people)

    collect(store, SMALL, MODELS, people, 3, prompts=ROWS, pause=pause, progress=said)
    [line] = [line for line in said.lines if "hf-align annotate" in line]
    assert line.endswith("--store postgresql+psycopg://anna:***@localhost/prefs")


def test_people_are_waited_for_when_the_prompts_are_used_up(store):
    people = ["anna", "ben", "cleo"]

    def pause():
        answer_all(store, people, most=2)

    result = collect(store, SMALL, MODELS, people, 9, prompts=ROWS[:1], pause=pause)
    assert not result.enough and result.valid == 3


def test_people_and_models_share_a_tasks_answers(store):
    people = ["anna", "ben"]
    result = collect(store, SMALL, MODELS, [*people, *JUDGES[:2]], 5, prompts=ROWS, wait=False)
    given = Counter(answer.task_id for answer in store.answers())
    assert set(given.values()) <= {1, 2} and len(result.waiting) == 5
    answer_all(store, people)
    result = collect(store, SMALL, MODELS, [*people, *JUDGES[:2]], 5, prompts=ROWS, wait=False)
    assert result.enough and result.annotators["anna"].answers > 0


def test_hasty_answers_do_not_count_and_are_asked_again_of_others(store):
    people = ["anna", "ben", "cleo", "dora"]
    collect(store, SMALL, MODELS, people, 3, prompts=ROWS, wait=False)
    answer_all(store, ["anna"], seconds=0.0)
    answer_all(store, people[1:3])
    result = collect(store, SMALL, MODELS, people, 3, prompts=ROWS, wait=False)
    assert result.valid == 0 and len(result.waiting) == 3
    assert result.dropped == {"answers of a quality below 0.8": 3}
    answer_all(store, ["dora"])
    assert collect(store, SMALL, MODELS, people, 3, prompts=ROWS, wait=False).enough


def test_an_adjudicator_decides_what_is_open_and_is_no_vote(store):
    judges = [*JUDGES[:2], judge("opposite", [row["prompt"] for row in ROWS])]
    result = collect(store, SMALL, MODELS, judges, 3, prompts=ROWS[:1], adjudicators=["chief"])
    [id, *_] = result.open
    store.record(id, "chief", 0.0, id="decision")
    result = collect(store, SMALL, MODELS, judges, 3, prompts=ROWS[:1], adjudicators=["chief"])
    assert list(result.verdicts) == [id] and result.verdicts[id].preference == 0.0
    assert sum(result.verdicts[id].votes) == 3


def divided(store, names=("anna", "ben", "cleo")):
    """The first says first, the second a tie, the third second."""
    return answer_all(store, names, prefer=lambda name, lease, better: 1.0 - names.index(name) / 2)


def with_adjudicators(store, n=3, adjudicators=("dora",), annotators=("anna", "ben", "cleo")):
    return collect(store, SMALL, MODELS, annotators, n, prompts=ROWS[:1], adjudicators=list(adjudicators), wait=False)


def test_adjudicators_get_open_tasks_and_nothing_else(store):
    with_adjudicators(store)
    assert store.annotators()["dora"].kind == "adjudicator"
    assert store.lease("dora", gold_share=1) is None and store.progress("dora").left == 0
    assert divided(store) == 9
    assert store.lease("dora") is None  # nobody has looked yet
    result = with_adjudicators(store)
    assert len(result.open) == 3 and result.valid == 0 and store.progress("dora").left == 3
    assert answer_all(store, ["dora"], prefer=lambda name, lease, better: 0.0) == 3
    assert store.lease("dora") is None and store.progress("dora").left == 0
    result = with_adjudicators(store)
    assert result.enough and {verdict.preference for verdict in result.verdicts.values()} == {0.0}
    assert {verdict.votes for verdict in result.verdicts.values()} == {(1, 1, 1)}
    # Who adjudicated does so in calls that don't name them, too.
    assert with_adjudicators(store, adjudicators=()).verdicts == result.verdicts
    assert {row["provenance"]["verdict"] for row in store.export()} == {"adjudicator"}
    assert store.statistics()["agreement"]["raw"] == 0  # decisions are no votes
    assert store.statistics()["people"] == 4
    with pytest.raises(UserError, match="'dora' is a person, and an adjudicator in the store"):
        with_adjudicators(store, adjudicators=(), annotators=["anna", "ben", "dora"])


def test_an_open_task_goes_to_one_adjudicator_until_skipped_or_given_back_and_an_undo_opens_it_again(store):
    with_adjudicators(store, adjudicators=["dora", "emil"])
    divided(store)
    with_adjudicators(store, adjudicators=["dora", "emil"])
    first, second = store.lease("dora"), store.lease("emil")
    assert first.task != second.task and store.lease("dora") == first
    assert (store.progress("dora").left, store.progress("emil").left) == (2, 2)
    store.answer(first.id, None, id="skip")
    store.answer(second.id, 1.0, id="decision")
    assert store.lease("emil").task == first.task
    assert store.lease("dora").task not in (first.task, second.task)
    assert store.undo("emil", id="undo").task == second.task
    assert len(with_adjudicators(store, adjudicators=["dora", "emil"]).open) == 3


def test_somebody_who_held_a_task_before_becoming_an_adjudicator_takes_no_place_of_the_voters(store):
    with_adjudicators(store, adjudicators=())
    held = store.lease("dora")
    with_adjudicators(store)
    assert store.lease("dora") is None and store.find_lease(held.id) is not None
    assert divided(store) == 9
    with_adjudicators(store)
    store.want(held.task.id, 4)
    assert store.lease("dora").task.id == held.task.id == store.lease("zoe").task.id


def test_the_share_of_gold_questions_on_the_page_is_the_collections(store):
    assert store.gold_share == 0.1
    for share in (0.99, 0.0):  # drawn for each person with the secret of the store
        collect(
            store,
            replace(SMALL, gold_share=share),
            MODELS,
            ["anna", "ben", "cleo"],
            9,
            prompts=ROWS,
            gold=GOLD,
            wait=False,
        )
        leases = [store.lease(f"person {share} {number}") for number in range(9)]
        gold = sum(lease.task.gold is not None for lease in leases)
        assert store.gold_share == share and (gold > 4 if share else gold == 0)
        for lease in leases:
            store.release(lease.id)


def test_a_round_that_another_call_laid_out_meanwhile_is_not_laid_out_again(store):
    def slow(prompts):
        if not store.tasks():
            other = replace(SMALL, seed=1)  # chooses other prompts
            collect(store, other, MODELS, ["anna", "ben", "cleo"], 3, prompts=ROWS, wait=False)
        return MODELS[0](prompts)

    slow.__name__ = "slow"
    result = collect(store, SMALL, [slow, *MODELS[1:]], ["anna", "ben", "cleo"], 3, prompts=ROWS, wait=False)
    assert len(result.waiting) == len(store.tasks()) == 3


def test_a_store_given_by_its_file_is_made_once_all_is_checked(tmp_path):
    place = tmp_path / "prefs.db"
    with pytest.raises(UserError, match="no/such/folder"):
        collect(place, SMALL, ["no/such/folder"], JUDGES, 3, prompts=ROWS)
    assert not list(tmp_path.iterdir())
    result = collect(place, SMALL, MODELS, JUDGES, 3, prompts=ROWS)
    assert collect(str(place), SMALL, [], JUDGES, 3).verdicts == result.verdicts
    assert len(list(open_store(place).answers())) >= 9


@pytest.mark.parametrize("last", range(1, 5))
def test_open_tasks_are_the_same_after_a_kill_at_any_write(last):
    whole, killed = (PreferenceStore("sqlite://", clock=Clock()) for _ in range(2))
    writes = Counter[str]()

    def count(connection, cursor, statement, *_):
        writes["all"] += statement.startswith(("INSERT", "UPDATE", "DELETE"))
        if writes["all"] == last:
            raise RuntimeError("killed")

    for store in (whole, killed):
        store.add(annotators=[Annotator("dora")])  # becomes an adjudicator
        with_adjudicators(store, adjudicators=())
        divided(store)
    event.listen(killed.engine, "before_cursor_execute", count)
    with pytest.raises(RuntimeError, match="killed"):
        with_adjudicators(killed)
    event.remove(killed.engine, "before_cursor_execute", count)
    for store in (whole, killed):
        with_adjudicators(store)
    assert whole.progress("dora").left == killed.progress("dora").left == 3
    leases = whole.lease("dora"), killed.lease("dora")
    assert leases[0] is not None and leases[1] is not None and leases[0].task == leases[1].task
    assert whole.annotators() == killed.annotators()
    whole.close()
    killed.close()


# What to ask about


def test_pairs_are_chosen_by_an_ensemble_among_all_that_were_not_asked_yet(store):
    def first(prompts, responses):
        return [number_of(response, "first") / 1e9 for response in responses]

    def second(prompts, responses):
        return [number_of(response, "second") / 1e9 for response in responses]

    config = CollectionConfig(batch_size=6, gold_share=0, selection="disagreement", **SIZES)
    collect(store, config, MODELS, JUDGES, 5, prompts=ROWS, reward=[first, second])
    assert len(store.prompts()) == 6 and len(store.responses()) == 18
    tasks = list(store.tasks().values())
    assert {task.choice["method"] for task in tasks} == {"disagreement"}
    least = min(task.choice["score"] for task in tasks)
    collect(store, config, [], JUDGES, 8, reward=[first, second])
    later = [task for task in store.tasks().values() if task.choice["round"] == 1]
    assert len(later) == 3 and max(task.choice["score"] for task in later) <= least
    assert len(store.responses()) == 18, "the pairs of the first round were left to choose from"


# By a head on a language model's states

HEAD = CollectionConfig(
    batch_size=4, gold_share=0, selection="information", annotators_per_task=1, first_answers=6, **SIZES
)
TINY = (tiny_model(num_hidden_layers=4), tiny_tokenizer())
TINY[0].config.name_or_path = "tiny"
SHORT = (tiny_model(num_hidden_layers=1, max_position_embeddings=64), tiny_tokenizer())
SHORT[0].config.name_or_path = "short"


def by_round(store):
    rounds = {}
    for task in store.tasks().values():
        rounds.setdefault(task.choice["round"], []).append(task)
    return [rounds[number] for number in sorted(rounds)]


def test_without_an_ensemble_a_head_on_a_language_models_states_chooses_after_a_first_round_at_random(store):
    lines = []
    progress = Silent()
    progress.line = lambda text, style="": lines.append(text)
    result = collect(store, HEAD, MODELS, JUDGES, 14, prompts=ROWS, features=TINY, progress=progress)
    assert result.enough
    first, *later = by_round(store)
    assert [len(tasks) for tasks in (first, *later)] == [6, 3, 4, 1]  # half of what was asked before, up to n
    assert {task.choice["method"] for task in first} == {"random"} and "at random: there are no answers" in lines[0]
    for tasks in later:
        assert {(task.choice["method"], task.choice["model"]) for task in tasks} == {("information", "tiny")}
        assert all(task.choice["score"] > 0 for task in tasks)
    other = PreferenceStore("sqlite://", clock=Clock())
    wrong = {store.prompts()[first[0].prompt_id].content}  # one of the first round's two prompts
    collect(other, HEAD, MODELS, [judge(name, wrong) for name in "xyz"], 14, prompts=ROWS, features=TINY)
    ours, others = by_round(store), by_round(other)
    assert ours[0] == others[0] and ours[1] != others[1], "other answers, another choice"
    other.close()


def test_the_next_choice_waits_for_half_of_the_answers_to_the_last(store):
    people = ["anna", "ben", "cleo"]
    given = [store, replace(HEAD, annotators_per_task=3, first_answers=12), MODELS, people, 9]
    collect(*given, prompts=ROWS, features=TINY, wait=False)
    assert [len(tasks) for tasks in by_round(store)] == [4]
    answer_all(store, people, most=5)
    collect(*given, prompts=ROWS, features=TINY, wait=False)
    assert len(by_round(store)) == 1, "5 of 12 answers are there"
    answer_all(store, people, most=1)
    collect(*given, prompts=ROWS, features=TINY, wait=False)
    assert [len(tasks) for tasks in by_round(store)] == [4, 2]
    assert {task.choice["method"] for task in by_round(store)[1]} == {"information"}


def test_a_choice_by_a_head_is_the_same_after_a_kill(store, tmp_path):
    def go(store, clock, cache=None):
        store.clock = clock
        return collect(store, HEAD, MODELS, JUDGES, 10, prompts=ROWS, features=TINY, cache=cache)

    clock = Clock()
    go(store, clock)
    assert len(by_round(store)) == 3
    for last in (clock.looks // 2, clock.looks - 3):
        broken = Store("sqlite://", clock=Clock())
        with pytest.raises(Killed):
            go(broken, Clock(last), tmp_path)
        go(broken, Clock(), tmp_path)
        assert content(broken) == content(store), f"killed at {last} of {clock.looks}"
        broken.close()


@pytest.mark.slow
def test_the_base_models_states_choose_the_second_round(base_dir, tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'prefs.db'}")
    config = CollectionConfig(
        selection="information", first_answers=12, annotators_per_task=1, max_new_tokens=12, batch_size=6, gold_share=0
    )
    rows = [{"prompt": f"The {what} was"} for what in ("film", "food", "weather", "journey", "book", "game", "hotel")]
    result = collect(store, config, [base_dir], JUDGES, 18, prompts=rows)
    assert result.enough
    first, second = by_round(store)
    assert (len(first), len(second)) == (12, 6)
    assert {task.choice["method"] for task in first} == {"random"}
    assert {(task.choice["method"], task.choice["model"]) for task in second} == {("information", base_dir)}
    assert all(task.choice["score"] > 0 for task in second)
    store.close()


# Gold questions


def test_models_answer_gold_questions_at_their_share_and_their_records_show(store):
    config = CollectionConfig(batch_size=4, gold_share=0.2, **SIZES)
    liar = judge("liar", [row["prompt"] for row in GOLD])
    result = collect(store, config, MODELS, [*JUDGES, liar], 24, prompts=ROWS, gold={"one": GOLD[:4], "two": GOLD[4:]})
    gold = {id for id, task in store.tasks().items() if task.gold is not None}
    assert gold and not gold & result.verdicts.keys() and result.gold == len(gold)
    for name in ("x", "y", "z"):
        asked = [answer.task_id in gold for answer in store.answers() if answer.annotator == name]
        assert 0.1 < sum(asked) / len(asked) <= 0.2
        assert result.annotators[name].wrong == 0 < result.annotators[name].right
    assert result.annotators["liar"].right == 0 < result.annotators["liar"].wrong
    assert result.annotators["liar"].counting == 0, "a model that fails them doesn't count"


# Killed and resumed


def run(store, clock, models=MODELS):
    store.clock = clock
    config = CollectionConfig(batch_size=2, gold_share=0.2, **SIZES)
    odd = judge("odd", [row["prompt"] for row in ROWS])
    judges = [*JUDGES, odd, FunctionAnnotator("shy", lambda p, f, s: None if number_of(f) % 3 else "first")]
    return collect(store, config, models, judges, 8, prompts=ROWS, gold=GOLD)


@pytest.fixture(scope="module")
def unbroken():
    """Result, content and number of looks at the clock of a run that nothing stops."""
    whole, clock = Store("sqlite://"), Clock()
    result = run(whole, clock)
    assert any(task.wanted > 3 for task in whole.tasks().values()), "the case has to ask more annotators"
    assert result.rounds > 1
    yield result, content(whole), clock.looks
    whole.close()


def test_killed_before_a_transaction_and_resumed_equals_an_unbroken_run(unbroken):
    result, expected, looks = unbroken
    for last in range(1, looks + 1, looks // 2):
        broken = Store("sqlite://", clock=Clock())
        with pytest.raises(Killed):
            run(broken, Clock(last))
        again = run(broken, Clock())
        assert content(broken) == expected, f"killed at {last} of {looks}"
        assert {**again.figures(), "strength": 0} == {**result.figures(), "strength": 0}
        assert again.figures()["strength"] == pytest.approx(result.figures()["strength"])
        broken.close()


class Camera(Clock):
    """Keeps what a store in memory holds before each transaction: what a process that is killed there leaves."""

    def __init__(self, store):
        super().__init__()
        self.database, self.states = in_memory(store), []

    def __call__(self):
        state = self.database.serialize()
        if not self.states or state != self.states[-1]:
            self.states.append(state)
        return super().__call__()


def in_memory(store) -> Any:
    """The driver's connection of a store in memory, which has one."""
    raw = store.engine.raw_connection()
    try:
        return raw.driver_connection
    finally:
        raw.close()


@pytest.mark.slow
def test_what_a_kill_before_any_transaction_leaves_is_finished_as_by_an_unbroken_run(unbroken):
    result, expected, looks = unbroken
    whole = Store("sqlite://")
    run(whole, camera := Camera(whole))
    whole.close()
    assert len(camera.states) > looks * 0.9, "nearly each transaction changes something"
    for number, state in enumerate(camera.states):
        broken = Store("sqlite://")
        in_memory(broken).deserialize(state)
        again = run(broken, Clock())
        assert content(broken) == expected, f"killed at {number} of {len(camera.states)}"
        assert {**again.figures(), "strength": 0} == {**result.figures(), "strength": 0}
        assert again.figures()["strength"] == pytest.approx(result.figures()["strength"])
        broken.close()


@pytest.mark.parametrize("calls", [1, 2])
def test_a_model_that_fails_leaves_no_half_round(unbroken, calls):
    left = [calls]

    def fails(prompts):
        left[0] -= 1
        if not left[0]:
            raise Killed
        return MODELS[0](prompts)

    fails.__name__ = "a"
    broken = Store("sqlite://", clock=Clock())
    with pytest.raises(Killed):
        run(broken, Clock(), [fails, *MODELS[1:]])
    assert not {*broken.prompts()} - {task.prompt_id for task in broken.tasks().values()}
    run(broken, Clock())
    assert content(broken) == unbroken[1]
    broken.close()


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"annotators": JUDGES[:2]}, "annotators_per_task is 3, and annotators has 2: x, y"),
        ({"annotators": [*JUDGES, "x"]}, "annotators has 'x' twice"),
        ({"annotators": "anna"}, "annotators is 'anna'; give a list of names"),
        ({"annotators": [*JUDGES, 3]}, "annotators has 3; give names, Annotator records, or models"),
        ({"annotators": [*JUDGES, "boss"], "adjudicators": ["boss"]}, "both have 'boss'"),
        ({"annotators": [judge(name, domains=("law",)) for name in "xyz"]}, r"no domain of the prompts \(a, b\)"),
        ({"config": CollectionConfig(selection="information")}, "selection is 'information' and there is no ensemble"),
        ({"config": CollectionConfig(selection="disagreement")}, "'disagreement' and there is no ensemble"),
        ({"reward": ["vader", "vader"]}, "reward is for selection 'disagreement' or 'information', which is 'random'"),
        ({"features": "no/model"}, "features is for selection 'information', which is 'random'"),
        ({"config": HEAD, "features": "no/model", "reward": ["vader", "vader"]}, "reward and features are both given"),
        ({"config": HEAD, "features": "no/such/folder"}, "no/such/folder"),
        ({"config": replace(HEAD, max_new_tokens=99), "features": SHORT}, "short has 64 positions"),
        ({"gold": [{"prompt": "p", "chosen": "c"}]}, "rejected"),
        ({"gold": [{"prompt": "p", "chosen": "c", "rejected": "d", "label": 0.5}]}, "label"),
        (
            {"gold": [{"prompt": [{"role": "user", "content": "p"}], "chosen": "c", "rejected": "d"}]},
            "'gold' are messages and those to collect for are text",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_asked(store, change, message):
    given = {"config": SMALL, "models": MODELS, "annotators": JUDGES, "n": 3, "prompts": ROWS, **change}
    with pytest.raises(UserError, match=message):
        collect(store, **given)
    assert not store.tasks() and not list(store.events())


def test_a_name_is_either_a_persons_or_a_models(store):
    collect(store, SMALL, MODELS, JUDGES, 3, prompts=ROWS)
    with pytest.raises(UserError, match="'x' is a person, and a model in the store"):
        collect(store, SMALL, MODELS, ["x", "anna", "ben"], 9, prompts=ROWS)


def test_prompts_of_domains_with_too_few_annotators_are_left_out(store):
    judges = [judge("x", domains=("a",)), judge("y"), judge("z")]
    collect(store, SMALL, MODELS, judges, 3, prompts=ROWS)
    assert {prompt.domain for prompt in store.prompts().values()} == {"a"}


def test_domains_and_groups_of_people_are_kept(store):
    people = [Annotator("anna", group="expert", domains=("a",)), "ben", "cleo"]
    collect(store, SMALL, MODELS, people, 3, prompts=ROWS, wait=False)
    assert store.annotators()["anna"].group == "expert"


def test_another_group_or_domains_of_a_known_annotator_are_taken_over_and_said(store):
    store.add(annotators=[Annotator("anna")])  # as when she opened the page
    people = [Annotator("anna", group="expert", domains=("a",)), "ben", "cleo", "dora"]
    sides = {"models": MODELS, "n": 3, "prompts": ROWS, "wait": False}
    collect(store, SMALL, annotators=people, progress=(said := Lines()), **sides)
    assert store.annotators()["anna"] == Annotator("anna", group="expert", domains=("a",))
    assert "annotator anna: group expert, domains a; until now group none, domains all" in said.lines
    collect(store, SMALL, annotators=people, progress=(said := Lines()), **sides)
    assert not any(line.startswith("annotator") for line in said.lines)
    people[:2] = [Annotator("anna", domains=("b",)), Annotator("ben", group="lay")]
    collect(store, SMALL, annotators=people, progress=(said := Lines()), **sides)
    assert store.annotators()["anna"] == Annotator("anna", group="expert", domains=("b",))
    assert store.annotators()["ben"].group == "lay"
    assert sum(line.startswith("annotator") for line in said.lines) == 2
