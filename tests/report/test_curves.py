"""Curves of several seeds: bands are those of the statistics, the stability gap is what its definition says."""

from cl_ext.metrics import accuracy_at_instants
from cl_ext.report.drawing.curves import Curve, curve_of, mean_and_band, on_one_grid, stability_gap
from cl_ext.report.statistics import band

import hypothesis.extra.numpy as arrays
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

fractions = st.floats(0, 1)


def curve(experience: list[int], accuracies: list[list[float]]) -> Curve:
    """A curve by way of the frame's column."""
    number = list(range(len(experience)))
    columns = {"experience": experience, "epoch": 1, "iteration": number}
    points = pd.DataFrame(columns | {"task_aware": [np.array(row) for row in accuracies]})
    found = curve_of(points, "task_aware")
    assert found is not None
    return found


@given(arrays.arrays(float, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=fractions))
def test_mean_and_band_are_those_of_each_point(values):
    mean, low, high = mean_and_band(values)
    np.testing.assert_allclose(mean, values.mean(axis=0))
    expected = np.array([band(column) for column in values.T])
    np.testing.assert_allclose(np.stack([low, high], axis=1), expected, atol=1e-12)


def test_a_point_that_one_seed_lacks_has_no_mean():
    mean, low, high = mean_and_band(np.array([[0.5, np.nan], [0.7, 0.9]]))
    assert mean[0] == pytest.approx(0.6)
    assert np.isnan([mean[1], low[1], high[1]]).all()


@given(arrays.arrays(float, (7, 3), elements=fractions))
def test_seen_is_the_metric(accuracies):
    experience = np.array([1, 1, 2, 2, 2, 3, 3])
    found = Curve(experience, np.arange(7.0), accuracies)
    np.testing.assert_allclose(found.seen, accuracy_at_instants(accuracies, experience))


def test_undefined_accuracies_of_later_experiences_do_not_matter():
    found = curve([1, 2], [[0.5, np.nan], [0.4, 0.8]])
    np.testing.assert_allclose(found.seen, [0.5, 0.6])


def test_instants_are_evenly_spaced_inside_an_experience():
    found = curve([1, 1, 2, 2, 2, 2], [[0.1, 0.2]] * 6)
    np.testing.assert_allclose(found.time, [0.5, 1.0, 1.25, 1.5, 1.75, 2.0])


def test_the_gap_by_hand():
    found = curve(
        [1, 1, 2, 2, 2, 3, 3],
        [[0.2, 0, 0], [0.9, 0, 0], [0.6, 0.3, 0], [0.4, 0.6, 0], [0.7, 0.8, 0], [0.5, 0.7, 0.5], [0.6, 0.9, 0.9]],
    )
    # boundary 1: 0.9 falls to 0.4 and comes back to 0.7; boundary 2: (0.7 + 0.8) / 2 falls to 0.6, back to 0.75
    np.testing.assert_allclose(stability_gap(found), [[1, 0.9, 0.4, 0.7, 5 / 3], [2, 0.75, 0.6, 0.75, 2.5]])


def test_no_boundary_no_gap():
    assert stability_gap(curve([1, 1], [[0.5, 0.5]] * 2)).shape == (0, 5)
    assert stability_gap(curve([1, 3], [[0.5] * 3] * 2)).shape == (0, 5)
    assert stability_gap(curve([1, 2], [[np.nan, 0.1], [0.2, 0.5]])).shape == (0, 5)


@given(arrays.arrays(float, (9, 3), elements=fractions))
def test_a_gap_is_no_return_below_its_lowest(accuracies):
    gaps = stability_gap(Curve(np.repeat([1, 2, 3], 3), np.arange(1, 10) / 3, accuracies))
    assert len(gaps) == 2
    k, _, lowest, after, at = gaps.T
    assert (lowest <= after).all()
    assert ((k < at) & (at <= k + 1)).all()


def test_equal_instants_are_stacked_as_they_are():
    one, two = curve([1, 1, 2], [[0.1, 0], [0.2, 0], [0.3, 0.5]]), curve([1, 1, 2], [[0.5, 0], [0.6, 0], [0.7, 0.1]])
    together = on_one_grid([one, two])
    np.testing.assert_array_equal(together.accuracies, [one.accuracies, two.accuracies])
    np.testing.assert_allclose(together.seen, [[0.1, 0.2, 0.4], [0.5, 0.6, 0.4]])


def test_other_instants_are_read_off_between():
    short = curve([1, 1, 2], [[0.0, 0], [0.4, 0], [0.8, 1.0]])
    long = curve([1, 1, 1, 1, 2], [[0.1, 0], [0.2, 0], [0.3, 0], [0.4, 0], [0.5, 0.9]])
    together = on_one_grid([short, long])
    np.testing.assert_allclose(together.time, long.time)
    np.testing.assert_allclose(together.accuracies[0, :, 0], [0.0, 0.0, 0.2, 0.4, 0.8])
    np.testing.assert_allclose(together.accuracies[1], long.accuracies)


def test_seeds_with_curves_over_other_experiences_are_refused():
    with pytest.raises(ValueError, match="over different experiences"):
        on_one_grid([curve([1, 2], [[0.1, 0.1]] * 2), curve([1, 1], [[0.1, 0.1]] * 2)])
