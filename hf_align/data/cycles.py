"""Preferences that go round in a circle: a > b, b > c and c > a."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from textwrap import shorten

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

SHOWN = 60
"""Characters of a text in a message."""
SEARCHED = 60
"""Most links of which the fewest to drop are searched for."""
TRIES = 300
"""Most sets of links that are tried for it."""

Link = tuple[int, int]
"""Numbers of the better and the worse node."""


def strong_components(nodes: int, better: ArrayLike, worse: ArrayLike) -> NDArray[np.int32]:
    """Number of each node's strongly connected component: nodes of one are better than each other, by some chain.

    Args:
        nodes: Number of nodes.
        better: `[N]` better node of each link.
        worse: `[N]` worse node.

    Returns:
        `[nodes]`; a link is part of a cycle if and only if both of its ends are in one component.
    """
    first, second = np.asarray(better, dtype=np.intp), np.asarray(worse, dtype=np.intp)
    graph = csr_array((np.ones(len(first), np.int8), (first, second)), shape=(nodes, nodes))
    return connected_components(graph, directed=True, connection="strong")[1]


def shortest_cycle(links: Iterable[Link]) -> list[int]:
    """Nodes of a shortest cycle from better to worse, the first one also the last; empty if there is none.

    Time grows with the number of links times that of nodes in cycles.

    Example:
        >>> from hf_align.data.cycles import shortest_cycle
        >>> shortest_cycle([(0, 1), (1, 2), (2, 3), (3, 1)])
        [1, 2, 3, 1]
    """
    below: defaultdict[int, list[int]] = defaultdict(list)
    for better, worse in sorted(links):
        below[better].append(worse)
    best: list[int] = []
    for start in list(below):
        came_from: dict[int, int] = {}
        waiting, depth = deque([start]), {start: 0}
        while waiting and start not in came_from:
            node = waiting.popleft()
            if best and depth[node] + 2 >= len(best):
                break
            for worse in below.get(node, ()):
                if worse not in came_from:
                    came_from[worse], depth[worse] = node, depth[node] + 1
                    waiting.append(worse)
        if start in came_from:
            cycle = [start, came_from[start]]
            while cycle[-1] != start:
                cycle.append(came_from[cycle[-1]])
            best = cycle[::-1] if not best or len(cycle) < len(best) else best
    return best


def rows_to_drop(
    links: Mapping[Link, Sequence[int]], cost: Mapping[int, float] | None = None
) -> tuple[list[int], bool]:
    """Rows without which no cycle is left: the fewest, and of equally few the cheapest, then the latest.

    A cycle is broken where all rows of one of its links are dropped, so the search goes from cycle to cycle, cheapest
    set first. Of more than `SEARCHED` links, and after `TRIES` sets, nodes are put in the order of how often they are
    better less how often worse (Coppersmith, Fleischer and Rudra, 2006), and rows that go up in it are dropped: few,
    not always the fewest.

    Args:
        links: Numbers of the rows that say it, by link; a row may say several.
        cost: Of rows, such as their margin. Default: 0.

    Returns:
        The rows, ascending, and whether there is certainly no smaller set.

    Example:
        >>> from hf_align.data.cycles import rows_to_drop
        >>> rows_to_drop({(0, 1): [4], (1, 2): [5, 6], (2, 0): [7]}, {4: 1.0, 7: 0.5})
        ([7], True)
    """
    price = cost or {}
    if len(links) <= SEARCHED:
        waiting: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
        known: set[frozenset[int]] = set()
        for _ in range(TRIES):
            _, paid, negative = heapq.heappop(waiting)
            dropped = {-row for row in negative}
            cycle = shortest_cycle(link for link, rows in links.items() if not dropped.issuperset(rows))
            if not cycle:
                return sorted(dropped), True
            for link in pairwise(cycle):
                more = dropped | set(links[link])
                if frozenset(more) not in known:
                    known.add(frozenset(more))
                    added = sum(price.get(row, 0.0) for row in more - dropped)
                    heapq.heappush(waiting, (len(more), paid + added, tuple(sorted(-row for row in more))))
    lead: defaultdict[int, int] = defaultdict(int)
    for (better, worse), rows in links.items():
        lead[better] += len(rows)
        lead[worse] -= len(rows)
    place = {node: number for number, node in enumerate(sorted(lead, key=lambda node: (-lead[node], node)))}
    return sorted({row for (a, b), rows in links.items() if place[a] > place[b] for row in rows}), False


def describe_cycle(prompt: str, responses: Sequence[str]) -> str:
    """A cycle for a message: "to the prompt 'The film was', ' a joy.' > ' fine.' > ' a joy.'"."""
    chain = " > ".join(repr(shorten(text, SHOWN)) for text in responses)
    return f"to the prompt {shorten(prompt, SHOWN)!r}, {chain}"
