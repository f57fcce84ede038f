import random
from itertools import pairwise

import pytest

from hf_align.data.chains import Chains, Circle


def test_every_joined_pair_has_the_chain_whose_weakest_link_is_strongest() -> None:
    rng = random.Random(0)
    nodes = list(range(7))
    rng.shuffle(nodes)  # better ones first: no circles
    links = [(a, b) for i, a in enumerate(nodes) for b in nodes[i + 1 :] if rng.random() < 0.4]
    values = [float(rng.randint(1, 4)) for _ in links]
    ways: dict[tuple[int, int], list[list[int]]] = {}

    def walk(start: int, here: int, taken: list[int]) -> None:
        for number, (a, b) in enumerate(links):
            if a == here:
                ways.setdefault((start, b), []).append([*taken, number])
                walk(start, b, [*taken, number])

    for node in nodes:
        walk(node, node, [])
    chains = Chains(links, values)
    assert sorted(chains.pairs) == sorted(ways)
    for pair, each in ways.items():
        best = max(min(values[number] for number in way) for way in each)
        length = min(len(way) for way in each if min(values[number] for number in way) == best)
        chain = chains.chain(*pair)
        assert chain in each and min(values[number] for number in chain) == best and len(chain) == length


def test_circles_are_given_from_better_to_worse() -> None:
    links = [(3, 1), (1, 2), (2, 3), (0, 3)]
    with pytest.raises(Circle) as caught:
        Chains(links, [1.0] * 4)
    nodes = caught.value.nodes
    assert nodes[0] == nodes[-1] and len(nodes) == 4 and all(link in links for link in pairwise(nodes))
