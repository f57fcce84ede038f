"""What preferences imply: a > b and b > c give a > c, along the chain whose weakest link is the strongest."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

import numpy as np

from hf_align.data.cycles import shortest_cycle
from hf_align.data.duplicates import connected


class Circle(ValueError):
    """Preferences that go round in a circle, a shortest one.

    Attributes:
        nodes: The nodes from better to worse; the first one is also the last.
    """

    def __init__(self, nodes: Sequence[int]) -> None:
        super().__init__(f"a circle of {len(nodes) - 1} preferences")
        self.nodes = list(nodes)


class Chains:
    """Pairs of nodes that a chain of links joins.

    Of several chains between two nodes the one with the largest smallest value counts, and of these the shortest. Time
    and memory grow with the square of the number of nodes that hang together.

    Args:
        links: Numbers of the better and the worse node.
        values: Strength of each link.

    Attributes:
        pairs: The better and the worse node of every pair that is joined, by a link or more.

    Raises:
        Circle: A node would be better than itself.

    Example:
        >>> from hf_align.data.chains import Chains
        >>> chains = Chains([(0, 1), (1, 2), (0, 2)], [3.0, 2.0, 1.0])
        >>> chains.pairs
        [(0, 1), (0, 2), (1, 2)]
        >>> chains.chain(0, 2)
        [0, 1]
    """

    def __init__(self, links: Sequence[tuple[int, int]], values: Sequence[float]) -> None:
        self.links, self.values = links, values
        self._first: dict[int, tuple[dict[int, int], np.ndarray]] = {}
        sorter: TopologicalSorter[int] = TopologicalSorter()
        for better, worse in links:
            sorter.add(worse, better)
        try:
            order = list(sorter.static_order())
        except CycleError:
            raise Circle(shortest_cycle(links)) from None
        number = {node: place for place, node in enumerate(order)}
        component = connected(len(order), [(number[better], number[worse]) for better, worse in links])
        nodes: dict[int, list[int]] = {}
        for node in order:
            nodes.setdefault(component[number[node]], []).append(node)
        below: dict[int, list[int]] = {}
        for link, (better, _) in enumerate(links):
            below.setdefault(better, []).append(link)
        self.pairs = [pair for each in nodes.values() for pair in self._join(each, below)]

    def _join(self, nodes: list[int], below: dict[int, list[int]]) -> list[tuple[int, int]]:
        """Find the best chains among nodes, which stand in an order in which every link goes down."""
        place = {node: number for number, node in enumerate(nodes)}
        weakest = np.full((len(nodes), len(nodes)), -np.inf)  # value of the weakest link of the best chain
        np.fill_diagonal(weakest, np.inf)
        length = np.zeros(weakest.shape, np.int32)
        first = np.full(weakest.shape, -1)  # the link that the best chain begins with
        for number in reversed(range(len(nodes))):  # what the worse nodes reach is complete
            for link in below.get(nodes[number], ()):
                through = place[self.links[link][1]]
                value, steps = np.minimum(self.values[link], weakest[through]), length[through] + 1
                shorter = (value == weakest[number]) & (value > -np.inf) & (steps < length[number])
                chosen = (value > weakest[number]) | shorter
                for table, row in ((weakest, value), (length, steps), (first, link)):
                    table[number] = np.where(chosen, row, table[number])
        for node in nodes:
            self._first[node] = (place, first)
        return [(nodes[better], nodes[worse]) for better, worse in np.argwhere(first >= 0).tolist()]

    def chain(self, better: int, worse: int) -> list[int]:
        """Numbers of the links between two nodes of one of the `pairs`, from the better one down."""
        place, first = self._first[better]
        chain = []
        while better != worse:
            chain.append(int(first[place[better], place[worse]]))
            better = self.links[chain[-1]][1]
        return chain
