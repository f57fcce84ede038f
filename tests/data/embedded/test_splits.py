import pytest

from hf_align.data.embedded.splits import assign_splits, group_rows


def test_rows_of_one_review_and_near_copies_share_a_group():
    rows = [
        ("products", "1_1", "the battery lasts for two days"),
        ("products", "1_2", "i like it"),
        ("movies", "1", "The battery lasts for two days!!"),
        ("movies", "2", "A film about a boy and his dog"),
        ("tweets", "1", "A film about a boy and his two dogs"),
        ("tweets", "2_1", "something else altogether"),
        ("tweets", "2_2", "nothing in common with it"),  # only products have reviews
    ]
    groups = group_rows(*zip(*rows, strict=True))
    assert groups == ["products/1_1"] * 3 + ["movies/2"] * 2 + ["tweets/2_1", "tweets/2_2"]


@pytest.mark.parametrize("size", [1, 7])
def test_splits_are_90_5_5_per_domain_and_depend_on_nothing_else(size):
    groups = [f"{domain}/{i // size}" for domain in ("movies", "tweets") for i in range(1400)]
    splits = assign_splits(groups)
    for domain in ("movies", "tweets"):
        ours = [split for split, group in zip(splits, groups, strict=True) if group.startswith(domain)]
        assert (ours.count("test"), ours.count("validation")) == (70, 70)
    by_group = dict(zip(groups, splits, strict=True))
    assert [by_group[group] for group in groups] == splits
    backwards = groups[::-1]
    assert assign_splits(backwards)[::-1] == splits


def test_a_group_too_large_to_hold_out_is_trained_on():
    splits = assign_splits(["products/1"] * 10 + [f"products/{i}" for i in range(2, 92)])
    assert set(splits[:10]) == {"train"}
    assert (splits.count("test"), splits.count("validation")) == (5, 5)
