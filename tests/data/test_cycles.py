import random
from itertools import combinations, pairwise, permutations

import pytest

from hf_align.data import cycles
from hf_align.data.cycles import Link, rows_to_drop, shortest_cycle, strong_components


def acyclic(links: set[Link]) -> bool:
    """Whether some order of the nodes has every link go down: by trying all orders."""
    nodes = sorted({node for link in links for node in link})
    return any(all(order.index(a) < order.index(b) for a, b in links) for order in permutations(nodes))


def draw(rng: random.Random, nodes: int, rows: int) -> dict[Link, list[int]]:
    """Rows that say one or two random preferences each."""
    links: dict[Link, list[int]] = {}
    for row in range(rows):
        for _ in range(rng.choice([1, 1, 2])):
            a, b = rng.sample(range(nodes), 2)
            if (b, a) not in links and row not in links.setdefault((a, b), []):
                links[a, b].append(row)
    return links


def left(links: dict[Link, list[int]], dropped: set[int]) -> set[Link]:
    return {link for link, rows in links.items() if not dropped.issuperset(rows)}


def test_as_few_rows_are_dropped_as_all_subsets_and_orders_show_to_be_needed() -> None:
    rng = random.Random(0)
    needed = set()
    for _ in range(25):
        links = draw(rng, nodes=5, rows=9)
        dropped, fewest = rows_to_drop(links)
        rows = sorted({row for each in links.values() for row in each})
        enough = (k for k in range(len(rows) + 1) if any(acyclic(left(links, {*c})) for c in combinations(rows, k)))
        assert (len(dropped), fewest) == (next(enough), True)
        assert acyclic(left(links, set(dropped)))
        needed.add(len(dropped))
    assert needed >= {0, 1, 2}


def test_of_equally_few_rows_the_cheapest_are_dropped_then_the_latest() -> None:
    ring = {(0, 1): [0], (1, 2): [1], (2, 3): [2], (3, 0): [3]}
    assert rows_to_drop(ring)[0] == [3]
    assert rows_to_drop(ring, {0: 2.0, 1: 0.5, 2: 1.0, 3: 0.7})[0] == [1]
    assert rows_to_drop({**ring, (1, 2): [1, 4]}, {0: 2.0, 1: 0.1, 2: 3.0, 3: 2.5, 4: 0.1})[0] == [0]  # not two


def test_of_many_links_a_small_but_perhaps_not_smallest_set_is_dropped() -> None:
    links = {(a, b): [10 * a + b] for a, b in combinations(range(13), 2)}  # an order of 13 ...
    links[12, 0] = links.pop((0, 12))  # ... but for one row
    assert len(links) > cycles.SEARCHED
    dropped, fewest = rows_to_drop(links)
    assert not fewest and len(dropped) == 1 and not shortest_cycle(left(links, set(dropped)))


@pytest.mark.parametrize("length", [2, 3, 5])
def test_a_shortest_cycle_is_found_among_longer_ones(length: int) -> None:
    rng = random.Random(length)
    names = rng.sample(range(100), 12)
    long, short = names[:7], names[5 : 5 + length]
    links = [*pairwise([*long, long[0]]), *pairwise([*short, short[0]])]
    rng.shuffle(links)
    cycle = shortest_cycle(links)
    assert cycle[0] == cycle[-1] and len(cycle) == length + 1 and set(pairwise(cycle)) <= set(links)
    assert shortest_cycle([(a, b) for a, b in links if a < b]) == []


def test_links_are_inside_a_component_if_and_only_if_a_way_leads_back() -> None:
    rng = random.Random(1)
    links = sorted(draw(rng, nodes=12, rows=14))
    component = strong_components(12, [a for a, _ in links], [b for _, b in links])
    reached = {node: {node} for node in range(12)}
    for _ in range(12):
        for a, b in links:
            reached[a] |= reached[b]
    assert [component[a] == component[b] for a, b in links] == [a in reached[b] for a, b in links]
    assert 0 < sum(a in reached[b] for a, b in links) < len(links)
