"""Which weights are pruned, and how many: against sorting, published schedules and products."""

import math

from cl_ext.nn.sparsity import allowed_share, cubic_sparsity, equal_share, lowest, smallest_owned

import numpy as np
import pytest
import torch
from torch import Tensor


def _weights(seed: int) -> Tensor:
    """A layer with many equal absolute values."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, (7, 9), generator=generator) / 4


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [0, 1, 5, 31, 62, 63])
def test_the_lowest_are_those_of_a_stable_sort(seed: int, count: int) -> None:
    scores = _weights(seed)
    expected = np.zeros(63, dtype=bool)
    expected[np.argsort(scores.flatten().numpy(), kind="stable")[:count]] = True
    assert lowest(scores, count).flatten().tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.77, 1.0])
def test_a_layer_gives_up_its_smallest_own_weights(seed: int, share: float) -> None:
    weight = _weights(seed)
    owned = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed + 50)) < 0.6
    given = smallest_owned(weight, owned, None, share)
    assert not bool((given & ~owned).any())
    assert int(given.sum()) == round(share * int(owned.sum()))
    kept, lost = weight[owned & ~given].abs(), weight[given].abs()
    if len(kept) and len(lost):
        assert lost.max() <= kept.min()


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_free_entries_count_and_go_first_even_before_weights_that_are_zero(share: float) -> None:
    weight, owned, free = _weights(0), torch.zeros(7, 9, dtype=torch.bool), torch.zeros(7, 9, dtype=torch.bool)
    owned[:4], free[4:5] = True, True  # 36 owned (some are 0), 9 free
    given = smallest_owned(weight, owned, free, share)
    assert int((given | free).sum()) == max(9, round(share * 45))
    assert not bool((given & free).any())
    assert int((weight[owned] == 0).sum()) > 0


def test_gradual_pruning_follows_the_published_vector() -> None:
    """316 steps: 4 epochs of 79 batches, as in the authors' CIFAR-100 runs."""
    steps = (10, 50, 100, 158, 200, 316)
    first = [round(cubic_sparsity(step, 0.0, 0.1, 316), 6) for step in steps]
    assert first == [0.009196, 0.040354, 0.068063, 0.0875, 0.095053, 0.1]
    assert cubic_sparsity(158, 0.1, 0.2, 316) == pytest.approx(0.1875)
    assert cubic_sparsity(0, 0.1, 0.2, 316) == pytest.approx(0.1)
    assert cubic_sparsity(400, 0.1, 0.2, 316) == 0.2
    assert cubic_sparsity(0, 0.1, 0.2, 0) == 0.2


@pytest.mark.parametrize("tasks", [1, 3, 10])
def test_equal_shares_leave_each_task_as_much(tasks: int) -> None:
    free, owned = 1.0, []
    for position in range(1, tasks + 1):
        given_up = equal_share(position, tasks)
        owned.append(free * (1 - given_up))
        free *= given_up
    assert owned == pytest.approx([1 / tasks] * tasks)
    assert free == 0.0


def test_equal_shares_of_ten_tasks() -> None:
    shares = [equal_share(position, 10) for position in range(1, 11)]
    assert [round(share, 3) for share in shares] == [0.9, 0.889, 0.875, 0.857, 0.833, 0.8, 0.75, 0.667, 0.5, 0.0]


def test_what_a_task_may_keep_where_it_misses_its_goal() -> None:
    """The authors' table for 20 tasks."""
    table = {position: allowed_share(20 - position) for position in range(1, 21)}
    assert all(table[position] == 0.1 for position in range(1, 11))
    assert (table[15], table[18], table[19], table[20]) == (0.2, 0.3, 0.5, 1.0)
    assert allowed_share(None) == 0.1
    assert math.isclose(1.0 - allowed_share(0), 0.0)
