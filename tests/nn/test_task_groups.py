"""Groups of tasks: joining, founding and merging by hand, and what networks of several groups predict together."""

import io
import math

from cl_ext.nn.averaging import AveragedNetwork
from cl_ext.nn.task_groups import TaskGroup, TaskGroups, average_into_, mean_of_softmaxes, surest

import pytest
import torch
from torch import Tensor, nn


def model(value: float) -> nn.Linear:
    linear = nn.Linear(2, 3)
    with torch.no_grad():
        for p in linear.parameters():
            p.fill_(value)
    return linear


def groups(tau_join: float = 0.5, max_groups: int = 3) -> TaskGroups:
    return TaskGroups(0.9, "ema", tau_join, max_groups, coins=lambda task: 1000 + task)


def sign(*values: float) -> Tensor:
    return torch.tensor(values)


def founded(similarities: list[dict[int, float]], **options: float) -> TaskGroups:
    """Groups of one task each: the k-th has the weights k, the signature (k, 1) and the similarities measured."""
    made = groups(**options)  # type: ignore[arg-type]
    for task, s in enumerate(similarities):
        made.found(task, sign(float(task), 1.0), s, model(float(task)))
    return made


def weight(group: TaskGroup) -> float:
    values = torch.cat([value.flatten() for value in group.average.values().values()])
    assert float(values.max()) == float(values.min())
    return float(values[0])


# ---- joining ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("s", "expected"),
    [
        ({0: 0.2, 1: 0.9, 2: 0.6}, 1),
        ({0: 0.5, 1: 0.1, 2: 0.3}, 0),  # tau_join itself is enough
        ({0: 0.49, 1: 0.1, 2: 0.3}, None),
        ({0: 0.1, 1: 0.7, 2: 0.7}, 1),  # of equals the oldest
        ({0: 0.0, 1: 0.0, 2: 0.0}, None),
    ],
)
def test_a_task_joins_the_most_similar_group_if_that_is_similar_enough(s: dict[int, float], expected: int) -> None:
    nearest = founded([{}, {0: 0.1}, {0: 0.1, 1: 0.1}]).nearest(s)
    assert (None if nearest is None else nearest.id) == expected


def test_without_a_group_there_is_none_to_join_and_with_one_at_most_every_task_joins() -> None:
    assert groups().nearest({}) is None
    only = founded([{}], max_groups=1).nearest({0: 0.0})
    assert only is not None
    assert only.id == 0


def test_a_founders_average_is_the_network_and_joining_averages_signatures() -> None:
    made = founded([{}, {0: 0.1}])
    assert [weight(group) for group in made] == [0.0, 1.0]
    for task, value in ((2, 4.0), (3, 7.0)):
        made.join(made[1], task, sign(value, 1.0), {0: 0.2, 1: 0.8})
    assert made[1].members == [1, 2, 3]
    assert torch.allclose(made[1].signature, sign((1.0 + 4.0 + 7.0) / 3, 1.0))
    assert made[1].compared == {0: (pytest.approx(0.1 + 0.2 + 0.2), 3)}
    assert made[0].compared == {1: (pytest.approx(0.5), 3)}
    assert [made.of_task(task) is made[1] for task in range(5)] == [False, True, True, True, False]
    assert made.of_task(4) is None


# ---- merging ---------------------------------------------------------------------------------------------------------
def test_the_two_closest_groups_are_merged_with_weights_by_member_count() -> None:
    made = founded([{}, {0: 0.2}, {0: 0.1, 1: 0.4}])
    made.join(made[1], 3, sign(1.0, 1.0), {0: 0.3, 1: 0.9, 2: 0.45})
    made[1].average.steps, made[2].average.steps = 7, 4
    assert made.full
    merged, gone = made.merge_closest()
    assert (merged.id, gone, merged.members, len(made)) == (1, 2, [1, 2, 3], 2)
    assert weight(merged) == pytest.approx((2 * 1.0 + 1 * 2.0) / 3)
    assert torch.allclose(merged.signature, sign((2 * 1.0 + 1 * 2.0) / 3, 1.0))
    assert merged.average.steps == 7
    assert not made.full
    total = 0.2 + 0.3 + 0.1  # what was measured between group 0 and the two
    assert made[0].compared == {1: (pytest.approx(total), 3)}
    assert merged.compared == {0: (pytest.approx(total), 3)}


def test_of_equally_close_pairs_the_oldest_is_merged_and_ids_are_not_used_again_by_mistake() -> None:
    made = founded([{}, {0: 0.4}, {0: 0.4, 1: 0.4}])
    merged, gone = made.merge_closest()
    assert (merged.id, gone) == (0, 1)
    new = made.found(3, sign(3.0, 1.0), {0: 0.1, 2: 0.1}, model(3.0))
    assert new.id == 3
    assert [group.members[0] for group in made] == [0, 2, 3]
    assert 1 not in made[0].compared
    assert 1 not in made[1].compared


def test_merging_networks_in_float64() -> None:
    one, two = AveragedNetwork(0.9, 1.0, "ema"), AveragedNetwork(0.9, 1.0, "ema")
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double() for _ in range(2))
    second[1].running_mean.fill_(3.0)
    one.follow(first)
    two.follow(second)
    average_into_(one, two, 0.25)
    for name, value in one.values().items():
        a, b = first.state_dict()[name], second.state_dict()[name]
        if value.is_floating_point():
            assert torch.allclose(value, 0.75 * a + 0.25 * b, atol=1e-14), name
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in two.values().items())


def test_the_mean_of_the_groups_is_by_member_count() -> None:
    made = founded([{}, {0: 0.1}])
    assert groups().mean_values() == {}
    made.join(made[1], 2, sign(0.0, 1.0), {0: 0.1, 1: 0.9})
    for value in made.mean_values().values():
        assert torch.allclose(value, torch.full_like(value, (1 * 0.0 + 2 * 1.0) / 3))
    single = founded([{}])
    assert all(torch.equal(value, single[0].average.values()[name]) for name, value in single.mean_values().items())


# ---- averages --------------------------------------------------------------------------------------------------------
def test_each_group_tosses_coins_of_its_own_and_at_its_own_rate() -> None:
    """Numbers of updates are binomial(n, r) within four standard deviations; a normal for a uniform draw is not."""
    made = founded([{}, {0: 0.0}, {0: 0.0, 1: 0.0}])
    n, rates = 3000, (0.05, 0.4, 0.95)
    normal_wins = [0, 0, 0]
    for index, (group, rate) in enumerate(zip(made, rates, strict=True)):
        group.average.rate = rate
        for _ in range(n):
            group.average.step_()
        spread = 4 * math.sqrt(n * rate * (1 - rate))
        assert abs(group.average.updates - n * rate) < spread
        draws = torch.randn(n, generator=torch.Generator().manual_seed(index))
        normal_wins[index] = int((draws < rate).sum())
        assert abs(normal_wins[index] - n * rate) > spread
    coins = [[group.average.coin() for _ in range(5)] for group in made]
    assert coins[0] != coins[1] != coins[2]


def test_saved_in_any_order_and_under_other_ids_the_groups_are_the_same() -> None:
    made = founded([{}, {0: 0.2}, {0: 0.1, 1: 0.4}])
    made.join(made[1], 3, sign(2.0, 1.0), {0: 0.3, 1: 0.9, 2: 0.45})
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    names = {0: 5, 1: 0, 2: 1}
    for each in state:
        each["id"] = names[each["id"]]
        each["compared"] = [[names[other], total, count] for other, total, count in each["compared"]]
    other = groups()
    other.load_state_dict([state[2], state[0], state[1]])
    other.follow(model(9.0))
    assert [group.members for group in other] == [[0], [1, 3], [2]]
    assert [group.id for group in other] == [5, 0, 1]
    assert [weight(group) for group in other] == [0.0, 1.0, 2.0]
    assert [a.average.coin() for a in other] == [b.average.coin() for b in made]
    merged, gone = other.merge_closest()
    expected, _ = made.merge_closest()
    assert (merged.id, gone) == (0, 1)
    assert merged.members == expected.members == [1, 2, 3]
    assert weight(merged) == weight(expected)
    assert other.bytes() == made.bytes() > 0


# ---- predictions -----------------------------------------------------------------------------------------------------
def test_the_surest_network_predicts_each_sample() -> None:
    z = torch.tensor([[[2.0, 0.0], [0.0, 0.1]], [[9.0, 8.5], [0.0, 3.0]]])  # the second has larger, less sure logits
    assert torch.equal(surest(z), torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    equal = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert torch.equal(surest(equal), equal[0])


def test_the_ensemble_is_the_mean_of_softmaxes() -> None:
    z = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = sum(each.softmax(1) for each in z) / 3
    assert torch.allclose(mean_of_softmaxes(z).exp(), mean, atol=1e-14)
    far = torch.tensor([[[0.0, -2000.0]], [[-2000.0, 0.0]]])  # a softmax of 0 is no NaN
    assert torch.allclose(mean_of_softmaxes(far).exp(), torch.tensor([[0.5, 0.5]]))
