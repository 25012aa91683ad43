"""Measures on the accuracy matrix: worked by hand, against naive loops, their properties and their undefined cases."""

import warnings

from cl_ext import metrics

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

NAN = float("nan")

# Row 0 is the untrained network. Experience 2 is best after experience 3 (0.8), experience 1 recovers a little at the
# end, and experience 3 is best of all in the last row, so that every reading of "forgetting" gives another number.
R = np.array(
    [
        [0.10, 0.20, 0.10, 0.10],
        [0.90, 0.30, 0.20, 0.10],
        [0.50, 0.70, 0.20, 0.20],
        [0.40, 0.80, 0.60, 0.30],
        [0.60, 0.50, 0.65, 0.90],
    ]
)
MATRIX_METRICS = [metric for metric in metrics.METRICS.values() if metric.inputs == ("R",)]


@pytest.fixture(autouse=True)
def _no_warning_ever():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def random_matrix(seed: int, experiences: int = 6) -> np.ndarray:
    return np.random.RandomState(seed).rand(experiences + 1, experiences)


def test_by_hand():
    assert metrics.average_accuracy(R) == pytest.approx((0.60 + 0.50 + 0.65 + 0.90) / 4)
    assert_allclose(metrics.accuracy_over_stream(R), [0.90, 0.60, 0.60, 0.6625])
    assert metrics.average_incremental_accuracy(R) == pytest.approx((0.90 + 0.60 + 0.60 + 0.6625) / 4)
    assert metrics.learning_accuracy(R) == pytest.approx((0.90 + 0.70 + 0.60 + 0.90) / 4)
    assert metrics.backward_transfer(R) == pytest.approx((-0.30 - 0.20 + 0.05) / 3)
    assert metrics.forward_transfer(R) == pytest.approx((0.10 + 0.10 + 0.20) / 3)
    assert_allclose(metrics.forgetting_per_experience(R), [0.30, 0.30, -0.05])
    assert metrics.forgetting(R) == pytest.approx(0.55 / 3)
    assert_allclose(metrics.intransigence_per_experience(R, [0.95, 0.9, 0.8, 0.85]), [0.05, 0.2, 0.2, -0.05])
    assert metrics.intransigence(R, [0.95, 0.9, 0.8, 0.85]) == pytest.approx(-0.05)


def test_five_readings_of_forgetting_differ_and_ours_is_chaudhrys():
    trained = R[1:]
    chaudhry = 0.55 / 3
    readings = {
        "first minus last (Avalanche)": float(np.mean(np.diagonal(trained)[:-1] - trained[-1, :-1])),
        "maximum with the last row (Mammoth, PILOT, PyCIL, CL-Gym)": float(
            np.mean(trained.max(axis=0)[:-1] - trained[-1, :-1])
        ),
        "over T, not T - 1 (RaptorMai)": 0.55 / 4,
        "clipped at 0 (cl-bench)": (0.30 + 0.30 + 0.0) / 3,
    }
    assert readings["first minus last (Avalanche)"] == pytest.approx(0.45 / 3)
    assert readings["maximum with the last row (Mammoth, PILOT, PyCIL, CL-Gym)"] == pytest.approx(0.60 / 3)
    assert metrics.forgetting(R) == pytest.approx(chaudhry)
    for name, value in readings.items():
        assert metrics.forgetting(R) != pytest.approx(value, abs=1e-3), name
    assert metrics.backward_transfer(R) == pytest.approx(-readings["first minus last (Avalanche)"])


def test_transfer_over_all_pairs():
    # rows 2, 3, 4 against the diagonal 0.9, 0.7, 0.6
    pairs = [0.5 - 0.9, 0.4 - 0.9, 0.6 - 0.9, 0.8 - 0.7, 0.5 - 0.7, 0.65 - 0.6]
    assert metrics.backward_transfer_pairs(R) == pytest.approx(sum(pairs) / 6)
    assert metrics.remembering(R) == pytest.approx(1 + sum(pairs) / 6)
    assert metrics.positive_backward_transfer(R) == 0
    better = R.copy()
    better[2:, 0] = 1.0
    assert metrics.remembering(better) == 1
    assert metrics.positive_backward_transfer(better) == pytest.approx((3 * 0.1 + 0.1 - 0.2 + 0.05) / 6)
    untrained = R.copy()
    untrained[0] = 0.0
    assert metrics.backward_transfer_pairs(untrained) == metrics.backward_transfer_pairs(R)


@pytest.mark.parametrize("seed", range(5))
def test_one_of_both_transfers_is_at_its_neutral_value(seed):
    R = random_matrix(seed)
    bwt = metrics.backward_transfer_pairs(R)
    assert metrics.positive_backward_transfer(R) - (1 - metrics.remembering(R)) == pytest.approx(bwt)
    assert metrics.positive_backward_transfer(R) == 0 or metrics.remembering(R) == 1


def test_two_experiences_have_one_pair():
    R = random_matrix(0, 2)
    assert metrics.backward_transfer_pairs(R) == pytest.approx(metrics.backward_transfer(R))
    one = [[0.5], [0.9]]
    assert np.isnan(metrics.remembering(one))
    assert np.isnan(metrics.positive_backward_transfer(one))


def test_transfer_is_not_diaz_rodriguez():
    trained, T = R[1:], 4
    pairwise = np.mean([trained[i, j] - trained[j, j] for i in range(T) for j in range(i)])
    assert metrics.backward_transfer(R) != pytest.approx(pairwise, abs=1e-3)
    without_b = np.mean([trained[i - 1, i] for i in range(1, T)])
    assert metrics.forward_transfer(R) != pytest.approx(without_b, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("T", [2, 3, 7])
def test_against_loops(seed, T):
    """The definitions again, in the papers' 1-based indices, one accuracy at a time."""
    R = random_matrix(seed, T)
    reference = np.random.RandomState(seed + 100).rand(T)

    def a(i, j):
        return R[i, j - 1]

    acc = sum(a(T, j) for j in range(1, T + 1)) / T
    over_stream = [sum(a(i, j) for j in range(1, i + 1)) / i for i in range(1, T + 1)]
    bwt = sum(a(T, i) - a(i, i) for i in range(1, T)) / (T - 1)
    fwt = sum(a(i - 1, i) - a(0, i) for i in range(2, T + 1)) / (T - 1)
    forgets = [max(a(step, j) for step in range(1, T)) - a(T, j) for j in range(1, T)]
    assert metrics.average_accuracy(R) == pytest.approx(acc)
    assert_allclose(metrics.accuracy_over_stream(R), over_stream)
    assert metrics.average_incremental_accuracy(R) == pytest.approx(sum(over_stream) / T)
    assert metrics.backward_transfer(R) == pytest.approx(bwt)
    assert metrics.forward_transfer(R) == pytest.approx(fwt)
    assert_allclose(metrics.forgetting_per_experience(R), forgets)
    assert metrics.forgetting(R) == pytest.approx(sum(forgets) / (T - 1))
    assert metrics.learning_accuracy(R) == pytest.approx(sum(a(i, i) for i in range(1, T + 1)) / T)
    assert metrics.intransigence(R, reference) == pytest.approx(reference[T - 1] - a(T, T))


def test_constant_matrix_transfers_and_forgets_nothing():
    R = np.full((6, 5), 0.3)
    for name in ("bwt", "fwt", "forgetting"):
        assert metrics.METRICS[name].function(R) == 0
    for name in ("accuracy", "average_incremental_accuracy", "learning_accuracy"):
        assert metrics.METRICS[name].function(R) == pytest.approx(0.3)
    assert metrics.intransigence(R, np.full(5, 0.3)) == 0


def test_permutations_that_change_nothing():
    R = random_matrix(3)
    order = np.random.RandomState(0).permutation(5)
    columns = R.copy()
    columns[:, :5] = R[:, order]
    rows = R.copy()
    rows[1:6] = R[1:6][order]
    assert metrics.average_accuracy(columns) == pytest.approx(metrics.average_accuracy(R))
    assert metrics.forgetting(columns) == pytest.approx(metrics.forgetting(R))
    assert metrics.forgetting(rows) == pytest.approx(metrics.forgetting(R))
    assert metrics.backward_transfer(rows) != pytest.approx(metrics.backward_transfer(R))


@pytest.mark.parametrize("seed", range(10))
def test_ranges_and_order(seed):
    R = random_matrix(seed)
    for metric in MATRIX_METRICS:
        low, high = metric.range
        assert low <= metric.function(R) <= high
    # The maximum is at least the diagonal: Chaudhry's forgetting is never below first minus last.
    assert metrics.forgetting(R) >= -metrics.backward_transfer(R) - 1e-12


def test_input_is_left_alone():
    R = random_matrix(0)
    before = R.copy()
    for metric in MATRIX_METRICS:
        metric.function(R)
    metrics.intransigence(R, np.diagonal(R[1:]))
    assert_array_equal(R, before)


def test_one_experience():
    R = [[0.5], [0.9]]
    assert metrics.average_accuracy(R) == metrics.learning_accuracy(R) == metrics.average_incremental_accuracy(R) == 0.9
    assert metrics.forgetting_per_experience(R).shape == (0,)
    for name in ("bwt", "fwt", "forgetting"):
        assert np.isnan(metrics.METRICS[name].function(R))


def test_joint_training_has_a_last_row_only():
    R = [[None] * 3] * 3 + [[0.9, 0.8, 0.7]]
    assert metrics.average_accuracy(R) == pytest.approx(0.8)
    assert_allclose(metrics.accuracy_over_stream(R), [NAN, NAN, 0.8])
    assert_allclose(metrics.forgetting_per_experience(R), [NAN, NAN])
    for metric in MATRIX_METRICS:
        assert np.isnan(metric.function(R)) == (metric.name != "accuracy"), metric.name
    assert metrics.intransigence(R, [0.5, 0.6, 0.75]) == pytest.approx(0.05)


def test_growing_head_has_no_future():
    grown = R.copy()
    grown[0] = NAN
    grown[1:][np.triu_indices(4, k=1)] = NAN
    assert_allclose(metrics.accuracy_over_stream(grown), metrics.accuracy_over_stream(R))
    assert_allclose(metrics.forgetting_per_experience(grown), [0.30, 0.30, -0.05])
    assert metrics.backward_transfer(grown) == pytest.approx(metrics.backward_transfer(R))
    assert np.isnan(metrics.forward_transfer(grown))


def test_a_hole_after_learning_is_undefined():
    hole = R.copy()
    hole[3, 0] = NAN  # after experience 3, on experience 1: its maximum is unknown
    assert_allclose(metrics.forgetting_per_experience(hole), [NAN, 0.30, -0.05])
    assert np.isnan(metrics.forgetting(hole))
    assert np.isnan(metrics.average_incremental_accuracy(hole))
    assert metrics.average_accuracy(hole) == pytest.approx(0.6625)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4)),
        np.zeros((3, 4)),
        np.zeros(4),
        np.zeros((1, 0)),
        0.5,
        [[0.1, 0.2], [0.3]],
        [["a"], ["b"]],
        np.full((4, 3), 81.2),
        np.full((4, 3), -0.1),
    ],
)
@pytest.mark.parametrize("metric", MATRIX_METRICS, ids=lambda metric: metric.name)
def test_bad_matrix_is_one_clear_error(metric, bad):
    with pytest.raises(ValueError, match=r"accuracy matrix"):
        metric.function(bad)


@pytest.mark.parametrize("reference", [[0.5], 0.5, np.zeros((4, 1)), [0.5, 0.5, 0.5, 1.5]])
def test_bad_reference(reference):
    with pytest.raises(ValueError, match=r"reference a\*"):
        metrics.intransigence(R, reference)
