"""Which samples score each other."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musc_jax.references import draw_references
from musc_jax.subsets import divide, thin_out


@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 3))
def test_subsets_are_a_partition_of_sizes_equal_up_to_one(count, subsets, seed):
    parts = divide(count, subsets=subsets, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert len(parts) == min(subsets, count // 2)


@given(st.integers(2, 60), st.integers(2, 12), st.integers(0, 3))
def test_batches_have_their_size_and_nobody_is_alone(count, batch_size, seed):
    parts = divide(count, batch_size=batch_size, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(count))
    sizes = [len(part) for part in parts]
    assert all(size == batch_size for size in sizes[:-1])
    assert 2 <= sizes[-1] <= batch_size + 1
    assert all((np.diff(part) > 0).all() for part in parts)


def test_a_seed_decides():
    first, again, other = (divide(20, subsets=3, seed=seed) for seed in (4, 4, 5))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    # What makes parts must be chance, not the order of the samples.
    assert any((np.diff(part) != 1).any() for part in first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subsets": 0}, "subsets: .* at least 1; received 0"),
        ({"batch_size": 1}, "batch_size: .* at least 2"),
        ({"batch_size": 3, "subsets": 2}, "received both"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        divide(10, **options)
    with pytest.raises(ValueError, match="N = 1"):
        divide(1)


@pytest.mark.parametrize(
    ("ratio", "good"), [(1, 9), (Fraction(1, 2), 4), (Fraction(1, 3), 3), (0.01, 1), (0, 0), (Fraction(9, 10), 8)]
)
def test_defective_samples_stay_and_a_share_of_the_good_ones(ratio, good):
    labels = [0, 1] * 6 + [0] * 3
    kept = thin_out(labels, ratio, seed=1)
    assert (np.diff(kept) > 0).all()
    assert [i for i in kept if labels[i]] == [i for i, label in enumerate(labels) if label]
    assert sum(labels[i] == 0 for i in kept) == good


def test_a_ratio_beyond_one_is_refused():
    with pytest.raises(ValueError, match="expected 0 to 1"):
        thin_out([0, 1], 1.5)


@given(st.integers(2, 40), st.integers(1, 50), st.integers(0, 3))
def test_references_are_others_and_as_many_as_asked_for(count, references, seed):
    drawn = draw_references(count, references, seed=seed)
    expected = min(references, count - 1)
    assert len(drawn.samples) == expected + 1
    assert drawn.columns.shape == (count, expected)
    for sample in range(count):
        scorers = drawn.samples[drawn.columns[sample]]
        assert len(set(scorers)) == expected
        assert sample not in scorers


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("references", [2.5, "3", True])
def test_references_are_a_whole_number(references):
    with pytest.raises(ValueError, match="references: expected a whole number"):
        draw_references(100, references)


def test_references_are_drawn_by_the_seed():
    first, again, other = (draw_references(100, 20, seed=seed).samples for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(ValueError, match=r"references: .* at least 1; received 0"):
        draw_references(10, 0)
    with pytest.raises(ValueError, match="N = 1"):
        draw_references(1, 3)
