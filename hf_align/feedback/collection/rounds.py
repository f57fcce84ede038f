"""A round of collecting: prompts, responses to them, and the tasks that are chosen of their pairs.

pools.py -> responses.py -> pairs.py -> choose.py -> gold.py -> the store, in one transaction
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hf_align.data.parts import Parts
from hf_align.feedback.collection.choose import choose_tasks
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.features import ResponseFeatures, comparisons_of
from hf_align.feedback.collection.gold import GoldQuestion, draw_gold, recheck
from hf_align.feedback.collection.inputs import EnsembleGuide, Sources
from hf_align.feedback.collection.pairs import make_pairs
from hf_align.feedback.collection.pools import choose_prompts, comparisons_by_domain
from hf_align.feedback.collection.responses import generate_responses
from hf_align.feedback.collection.state import State
from hf_align.feedback.records import Annotator, Prompt, Response, Task
from hf_align.feedback.store import PreferenceStore
from hf_align.numbers import plural
from hf_align.progress import Progress


@dataclass
class Rounds:
    """Lays out rounds.

    Attributes:
        store: Where to.
        config: Options.
        sources: Prompts, writers and gold questions.
        annotators: Everybody who answers.
        guide: What pairs are chosen by; None: at random.
        parts: Keeps responses until their round is in the store.
        progress: Receiver of progress.
        used_up: Whether there is nothing left to lay out.
    """

    store: PreferenceStore
    config: CollectionConfig
    sources: Sources
    annotators: Sequence[Annotator]
    guide: EnsembleGuide | ResponseFeatures | None
    parts: Parts
    progress: Progress
    used_up: bool = False

    def lay_out(self, state: State, needed: int) -> bool:
        """Add a round's prompts, responses and tasks to the store, in one transaction.

        With something to choose by, the pairs of all prompts so far that weren't asked about are candidates, too.

        Args:
            state: What the store holds.
            needed: Comparisons that are wanted.

        Returns:
            Whether there was anything.
        """
        config = self.config
        candidates = [] if self.guide is None else self._unasked(state)
        answered = comparisons_of(state) if isinstance(self.guide, ResponseFeatures) else []
        at_random = self.guide is None or (isinstance(self.guide, ResponseFeatures) and not answered)
        chosen = self._prompts(state.round, needed if at_random else None)
        if not chosen and not candidates:
            self.used_up = True
            return False
        made = generate_responses(chosen, self.sources.writers, config, parts=self.parts, progress=self.progress)
        by_prompt = {prompt.id: made.responses.get(prompt.id, []) for prompt in chosen}
        candidates += [task for prompt in chosen for task in make_pairs(prompt, by_prompt[prompt.id], config)]
        responses = [response for each in by_prompt.values() for response in each]
        asked = list(state.tasks.values())
        tasks = choose_tasks(
            candidates,
            method="random" if at_random else config.selection,
            n=needed,
            seed=config.seed,
            round=state.round,
            model=None if self.guide is None else self.guide.name,
            answered=answered,
            asked=asked,
            **self._evidence([] if at_random else candidates, asked, chosen, responses),
        )
        if any(task.choice.get("round", -1) >= state.round for task in self.store.tasks().values()):
            return True  # another call on this store was first: look at what it laid out
        questions = self._check_questions(state, tasks)
        self.store.add(
            prompts=[*chosen, *(each.prompt for each in questions)],
            responses=[*responses, *(response for each in questions for response in each.responses)],
            tasks=_mixed(tasks, [each.task for each in questions]),
        )
        self.progress.line(
            f"round {state.round + 1}: {plural(len(chosen), 'prompt')}, {plural(len(responses), 'response')}, asking "
            f"about {len(tasks):,} of {plural(len(candidates), 'pair')}"
            + (", at random: there are no answers yet to choose by" if at_random and self.guide is not None else "")
        )
        return True

    def _prompts(self, round: int, comparisons: int | None) -> list[Prompt]:
        """A round's prompts.

        Args:
            round: The round's number.
            comparisons: Take no more prompts than these need; None: a whole batch, of whose pairs some are chosen.
        """
        config, batch = self.config, self.config.batch_size
        if comparisons is not None:
            pairs = min(config.max_pairs, math.comb(config.responses_per_prompt, 2))
            batch = min(batch, math.ceil(comparisons / pairs))
        return choose_prompts(
            self.sources.pool,
            replace(config, batch_size=batch),
            round=round,
            used=self.store.prompts().keys(),
            comparisons=comparisons_by_domain(self.store),
        ).prompts

    def _unasked(self, state: State) -> list[Task]:
        """Pairs of the store's responses that aren't tasks yet."""
        by_prompt: dict[str, list[Response]] = {}
        for response in self.store.responses().values():
            by_prompt.setdefault(response.prompt_id, []).append(response)
        taken = state.tasks.keys() | {task.prompt_id for task in state.gold.values()}
        prompts = [each for each in self.store.prompts().values() if each.id not in taken]
        pairs = [task for prompt in prompts for task in make_pairs(prompt, by_prompt.get(prompt.id, []), self.config)]
        return [task for task in pairs if task.id not in taken]

    def _evidence(
        self,
        candidates: Sequence[Task],
        asked: Sequence[Task],
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
    ) -> dict[str, Any]:
        """What `choose_tasks` chooses by: each candidate response's scores by an ensemble's members, or its features.

        Features are also of the responses of tasks that were asked about.
        """
        if self.guide is None or not candidates:
            return {"member_scores": None}
        known = {**self.store.prompts(), **{prompt.id: prompt for prompt in prompts}}
        texts = {**self.store.responses(), **{response.id: response for response in responses}}
        if isinstance(self.guide, ResponseFeatures):
            by_prompt: dict[str, list[Response]] = {task.prompt_id: [] for task in (*candidates, *asked)}
            for text in texts.values():
                if text.prompt_id in by_prompt:
                    by_prompt[text.prompt_id].append(text)
            features = self.guide([known[id] for id in by_prompt], by_prompt, self.progress)
            return {"member_scores": None, "features": features}
        ids = dict.fromkeys(id for task in candidates for id in (task.first_id, task.second_id))
        sides = [texts[id] for id in ids]
        return {"member_scores": self.guide.members([known[side.prompt_id] for side in sides], sides)}

    def _check_questions(self, state: State, tasks: Sequence[Task]) -> list[GoldQuestion]:
        """Gold questions to add to a round; and asks one more answer of tasks that serve as such."""
        config = self.config
        gold = self.sources.gold
        again = recheck(state.tasks, state.answers, self.annotators, config, config.gold_share / (len(gold) + 1))
        if again:
            self.store.want_each(again)
        share = config.gold_share / (1 - config.gold_share)
        return draw_gold(
            gold,
            math.ceil(share * len(tasks)),
            asked=state.gold.keys() | state.tasks.keys(),
            domains={task.domain for task in tasks},
            round=state.round,
            seed=config.seed,
        )


def _mixed(tasks: Sequence[Task], gold: Sequence[Task]) -> list[Task]:
    """Gold questions spread among the other tasks, so that their order says nothing."""
    places = [((place + 0.5) / len(part), task) for part in (tasks, gold) for place, task in enumerate(part)]
    return [task for _, task in sorted(places, key=lambda item: (item[0], item[1].id))]
