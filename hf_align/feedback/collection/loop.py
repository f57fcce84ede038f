"""The loop that collects preferences until there are enough valid comparisons.

    collect
      ask models                    annotators.py, assign.py: tasks by domain and load, gold questions first
      look                          validate.py: which comparisons are valid, which need more answers, which stay open
      ask for more answers          where annotators don't agree or their answers don't count
      lay out a round               rounds.py
      wait for people               they answer on the page

Everything is in the store: a round's prompts, responses and tasks are added in one transaction, and what happens next
hangs on what the store holds. So a call that was killed goes on when it is made again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection as Names, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from sqlalchemy.engine import make_url

from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.feedback.collection.annotators import ModelAnnotator, Question, ask_model
from hf_align.feedback.collection.assign import suits
from hf_align.feedback.collection.checks import check_annotators, check_selection
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.domains import Classifier
from hf_align.feedback.collection.features import ResponseFeatures, next_round
from hf_align.feedback.collection.gold import Rows
from hf_align.feedback.collection.inputs import (
    EnsembleGuide,
    beside,
    known_annotators,
    read_annotators,
    read_sources,
)
from hf_align.feedback.collection.opening import appoint, keep_annotators, open_to_look
from hf_align.feedback.collection.result import Collection, summarise
from hf_align.feedback.collection.rounds import Rounds
from hf_align.feedback.collection.state import State, read_state
from hf_align.feedback.records import Annotator
from hf_align.feedback.store import PreferenceStore
from hf_align.feedback.store.place import url_of
from hf_align.models.quantized import Quantization
from hf_align.numbers import plural
from hf_align.progress import Progress, Silent

PAUSE = 2.0
"""Seconds between two looks at the store while people answer."""


def collect(
    store: PreferenceStore | str | os.PathLike[str],
    config: CollectionConfig,
    models: Any,
    annotators: Sequence[str | Annotator | ModelAnnotator],
    n: int,
    *,
    prompts: Dataset | list[dict[str, Any]] | None = None,
    gold: Rows | Mapping[str, Rows] | None = None,
    reward: Any = None,
    features: Any = None,
    classify: Classifier | None = None,
    adjudicators: Names[str] = (),
    cache: str | os.PathLike[str] | None = None,
    quantization: Quantization = None,
    wait: bool = True,
    pause: Callable[[], None] = lambda: time.sleep(PAUSE),
    progress: Progress | None = None,
) -> Collection:
    """Collect preferences until a store has enough valid comparisons.

    A round chooses prompts, has models respond, makes pairs, chooses the pairs to ask about and puts them into the
    store as tasks. Models among the annotators are asked at once, people take tasks on the page (`hf-align annotate`).
    A comparison is valid if enough answers of sufficient quality agree; otherwise further annotators are asked, up to
    `max_annotators`, after which the task stays open until an adjudicator answers it. The next round comes when the
    valid comparisons and those still being answered are fewer than `n`. The same call goes on where it was stopped.

    Args:
        store: The store, or its file or URL; a file that isn't there is made once everything is checked. What it holds
            already counts.
        config: Options.
        models: Who writes responses: Hub ids, folders, loaded models, or functions `list[prompt] -> list[text]`; see
            `hf_align.feedback.collection.writers.open_models`. May be empty without `prompts`.
        annotators: Who answers: names of people, or `Annotator` records with their domains and groups; and models
            (`JudgeAnnotator`, `RewardAnnotator`, `FunctionAnnotator`). A task's answers are shared evenly among all of
            its domain. A group or domains other than the store has are changed there; where none is given, the store's
            stay.
        n: Valid comparisons wanted in the store.
        prompts: Rows with a `prompt`; see `hf_align.feedback.collection.pools.read_pool`. None: only what the store has
            is finished.
        gold: Pairs of which `chosen` is known to be better, asked now and then to check annotators (`gold_share`); or
            several such data sets by names. Tasks on which the first annotators were of one mind serve as a further
            source.
        reward: For a `selection` other than random: a `RewardEnsemble`, its folder, or a list of rewards.
        features: For information without `reward`: the language model on whose hidden states a head is fitted to the
            answers so far (Hub id, folder, loaded model or pair of model and tokenizer). The first round is at random.
            Default: the first language model of `models`.
        classify: Names the domain of prompts whose row has none. Default: a guess by key words.
        adjudicators: Names of people whose answer decides a task and isn't counted as a vote, beside those whom the
            store knows as adjudicators. On the page they get the tasks that were open at the last look of a call.
        cache: Folder in which responses are kept until their round is in the store, and for later calls. Default:
            beside an SQLite file, otherwise none.
        quantization: Of models that are loaded.
        wait: Wait for people; False: return when only they can go on.
        pause: Called between two looks at the store while people answer.
        progress: Receiver of progress. Default: none.

    Returns:
        What there is: valid comparisons with their verdicts, what is open, and figures by annotator. Fewer than `n` are
        valid if the prompts are used up or, with `wait=False`, people are to answer.

    Raises:
        UserError: An argument can't be used, or an annotator or model fails; all earlier answers are stored.

    Example:
        >>> from hf_align.feedback import CollectionConfig, FunctionAnnotator, PreferenceStore, collect
        >>> def polite(prompts):
        ...     return ["Of course, gladly." for _ in prompts]
        >>> def curt(prompts):
        ...     return ["No." for _ in prompts]
        >>> longer = FunctionAnnotator("longer", lambda prompt, first, second: float(len(first) > len(second)))
        >>> config = CollectionConfig(responses_per_prompt=2, min_responses=2, annotators_per_task=1)
        >>> rows = [{"prompt": f"May I ask question {number}?"} for number in range(8)]
        >>> result = collect(PreferenceStore("sqlite://"), config, [polite, curt], [longer], 5, prompts=rows)
        >>> result.valid, result.annotators["longer"].answers
        (5, 5)
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise UserError(f"n is {n!r}; give the number of valid comparisons wanted, from 1")
    records, asked = read_annotators(annotators)
    with ExitStack() as closing:
        opened, make = open_to_look(store, closing)
        everybody = known_annotators(opened.annotators(), records)
        check_annotators(everybody, config, adjudicators)
        check_selection(config, models, reward, features)
        sources = read_sources(
            *(config, models, everybody),
            **{"prompts": prompts, "gold": gold, "reward": reward, "features": features, "classify": classify},
            quantization=quantization,
            stored=opened.prompts() if config.selection == "information" else None,
        )
        url = store.url if isinstance(store, PreferenceStore) else url_of(store)
        parts = Parts(beside(url) if cache is None else Path(cache))
        guide: EnsembleGuide | ResponseFeatures | None = None
        if sources.policy is not None:
            guide = ResponseFeatures(sources.policy, parts)
        elif reward is not None:
            guide = EnsembleGuide.of(reward)
        opened = make()
        changed = keep_annotators(opened, everybody)
        opened.gold_share = config.gold_share
        loop = _Loop(
            *(opened, config, asked, everybody, n, appoint(opened, adjudicators)),
            Rounds(opened, config, sources, everybody, guide, parts, progress or Silent()),
            *(wait, pause, progress or Silent()),
        )
        for line in changed:
            loop.progress.line(line)
        if sources.left_out:
            left_out = plural(sources.left_out, "prompt")
            loop.progress.line(f"{left_out} left out: too few annotators answer their domain", "yellow")
        return loop.run()


@dataclass
class _Loop:
    """A call of `collect` with everything checked; see the top of this file."""

    store: PreferenceStore
    config: CollectionConfig
    models: Mapping[str, ModelAnnotator]
    annotators: Sequence[Annotator]
    n: int
    adjudicators: Sequence[str]
    rounds: Rounds
    wait: bool
    pause: Callable[[], None]
    progress: Progress
    seen: tuple[Any, ...] = ()
    marked: list[str] | None = None

    def run(self) -> Collection:
        """Go on until there is enough, or nothing left to do."""
        told = False
        while True:
            state = self.look()
            if self.ask_models(state):
                continue
            valid, waiting = len(state.of_state("valid")), state.of_state("asked")
            if valid >= self.n:
                break
            if more := state.more:
                self.store.want_each(more)
                self.progress.line(f"asking for another answer to {plural(len(more), 'task')}")
            elif (needed := self.needed(state)) and self.rounds.lay_out(state, needed):
                told = False
            elif waiting and self.wait:
                if not told:
                    people = ", ".join(each.name for each in self.annotators if each.name not in self.models)
                    place = make_url(self.store.url).render_as_string(hide_password=True)
                    tasks = plural(len(waiting), "task")
                    self.progress.line(f"{tasks} waiting for {people}: hf-align annotate --store {place}")
                    told = True
                self.watch(state)
            else:
                break
        if self.marked:
            place = make_url(self.store.url).render_as_string(hide_password=True)
            people = ", ".join(self.adjudicators)
            self.progress.line(
                f"{plural(len(self.marked), 'task')} open for {people}: hf-align annotate --store {place}; then give "
                "the same call again"
            )
        return summarise(self.store, state, self.config, self.n, self.adjudicators)

    def needed(self, state: State) -> int:
        """Comparisons to lay out, so that there can be enough; 0 once the prompts are used up."""
        laid_out = len(state.of_state("valid")) + len(state.of_state("asked"))
        needed = 0 if self.rounds.used_up else max(0, self.n - laid_out)
        if isinstance(self.rounds.guide, ResponseFeatures):
            return min(needed, next_round(state, self.config))
        return needed

    def look(self) -> State:
        """What the store holds now; what is open is marked for adjudicators where that changed."""
        self.seen = self.store.mark()  # before the look: what comes in between is looked at again
        state = read_state(self.store, self.config, self.annotators, self.adjudicators)
        if self.adjudicators and (is_open := state.of_state("open")) != self.marked:
            self.store.mark_open(is_open)
            self.marked = is_open
        return state

    def watch(self, state: State) -> None:
        """Wait until answers of people made a difference to what there is to do."""
        with self.progress.task("valid comparisons", self.n) as advance:
            while True:
                valid, waiting = len(state.of_state("valid")), len(state.of_state("asked"))
                advance(min(valid, self.n), f"{plural(waiting, 'task')} waiting for answers")
                models = any(name in self.models for names in state.assigned.values() for name in names)
                if valid >= self.n or state.more or models or not waiting or self.needed(state):
                    return
                self.pause()
                while self.store.mark() == self.seen:
                    self.pause()
                state = self.look()

    def ask_models(self, state: State) -> bool:
        """Ask the models what they are assigned, gold questions first; whether there was anything to ask."""
        plan: dict[str, list[str]] = {}
        due = {id: names for id, names in state.assigned.items() if id not in state.more}
        for name, model in self.models.items():
            ids = [id for id, names in due.items() if name in names]
            plan[name] = [*self.due_gold(state, model, len(ids)), *ids]
        if not any(plan.values()):
            return False
        tasks, prompts, responses = {**state.tasks, **state.gold}, self.store.prompts(), self.store.responses()
        for name, ids in plan.items():
            questions = [
                Question(task, prompts[task.prompt_id], responses[task.first_id], responses[task.second_id])
                for task in map(tasks.__getitem__, ids)
            ]
            with self.progress.task(f"answers of {name}", len(questions)) as advance:
                for done in ask_model(self.store, self.models[name], questions, state.undos):
                    advance(done, "")
        return True

    def due_gold(self, state: State, model: ModelAnnotator, more: int) -> list[str]:
        """The gold questions that a model is to answer, so that they are `gold_share` of all it answers."""
        done = {event.task_id for event in state.standing if event.annotator == model.name}
        share = self.config.gold_share / (1 - self.config.gold_share)
        due = int(share * (len(done - state.gold.keys()) + more))
        fit = [id for id, task in state.gold.items() if suits(model.record, task.domain)]
        return [id for id in fit[:due] if id not in done]
