"""AUROC against all pairs of a positive and a negative sample."""

from cl_ext.metrics.auroc import auroc

import numpy as np
import pytest


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_the_share_of_pairs_in_order(ties: bool) -> None:
    random = np.random.RandomState(0)
    scores = random.randint(0, 5, 60) if ties else random.randn(60)
    positive = random.rand(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))


def test_its_ends_and_where_it_is_undefined() -> None:
    assert auroc([0.1, 0.2, 0.9], [False, False, True]) == 1.0
    assert auroc([0.1, 0.2, 0.9], [True, False, False]) == 0.0
    assert auroc([1.0, 1.0, 1.0], [True, False, False]) == 0.5
    assert np.isnan(auroc([0.3, 0.4], [True, True]))


def test_nan_and_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="a score is NaN"):
        auroc([float("nan"), 1.0], [True, False])
    with pytest.raises(ValueError, match=r"vectors of one length, not \(2,\) and \(3,\)"):
        auroc([0.0, 1.0], [True, False, True])
