"""Averages of networks against closed forms in float64, and the three choices for batch norm's statistics."""

import copy
import math
from collections.abc import Callable

from cl_ext.nn.averaging import AveragedNetwork, Statistics, average_, decay

import pytest
import torch
from torch import Tensor, nn


def walk(average: AveragedNetwork, steps: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[list[Tensor]]:
    """Moves a small network at random with its average behind it; returns theta_0 ... theta_k."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).to(dtype)
    average.follow(model)
    iterates = [[p.detach().clone() for p in model.parameters()]]
    for _ in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                p += 0.1 * torch.randn_like(p)
        average.step_()
        iterates.append([p.detach().clone() for p in model.parameters()])
    return iterates


def averages(average: AveragedNetwork) -> list[Tensor]:
    assert average.network is not None
    return list(average.network.parameters())


def weighted(iterates: list[list[Tensor]], weights: list[float]) -> list[Tensor]:
    """sum_i weights_i theta_i in float64, by a list of all iterates."""
    return [
        sum((w * part.double() for w, part in zip(weights, parts, strict=True)), torch.zeros(()).double())
        for parts in zip(*iterates, strict=True)
    ]


def far(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((p.double() - q.double()).abs().max()) for p, q in zip(a, b, strict=True))


def product_weights(steps: int, alpha: float, updated: Callable[[int], bool] = lambda k: True) -> list[float]:
    """What each of theta_0 ... theta_k weighs: (1 - a_i) prod_{j > i} a_j, over the steps that had an update."""
    a = [min(1 - 1 / (k + 1), alpha) if updated(k) else 1.0 for k in range(1, steps + 1)]
    return [math.prod(a)] + [(1 - a[i]) * math.prod(a[i + 1 :]) for i in range(steps)]


def test_never_updated_it_is_the_initial_network() -> None:
    average = AveragedNetwork(0.9, rate=0.0)
    iterates = walk(average, 30)
    assert average.updates == 0
    assert far(averages(average), iterates[0]) == 0.0


def test_without_memory_it_is_the_network_itself() -> None:
    average = AveragedNetwork(0.0)
    iterates = walk(average, 30)
    assert far(averages(average), iterates[-1]) == 0.0


@pytest.mark.parametrize("steps", [1, 2, 17, 99])
def test_while_it_warms_up_it_is_the_arithmetic_mean_of_all_iterates(steps: int) -> None:
    """k + 1 <= 1/(1 - alpha): with alpha = .99 up to step 99, the initial weights included."""
    average = AveragedNetwork(0.99)
    iterates = walk(average, steps, dtype=torch.float64)
    mean = [torch.stack(parts).mean(0) for parts in zip(*iterates, strict=True)]
    assert far(averages(average), mean) < 1e-14
    single = AveragedNetwork(0.99)
    mean = weighted(walk(single, steps), [1 / (steps + 1)] * (steps + 1))
    assert far(averages(single), mean) < 1e-6


@pytest.mark.parametrize(("alpha", "steps"), [(0.99, 300), (0.9, 60), (0.5, 7), (1.0, 50)])
def test_after_it_the_weights_are_products_of_the_decays(alpha: float, steps: int) -> None:
    weights = product_weights(steps, alpha)
    assert sum(weights) == pytest.approx(1.0, abs=1e-12)
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-6)):
        average = AveragedNetwork(alpha)
        expected = weighted(walk(average, steps, dtype=dtype), weights)
        assert far(averages(average), expected) < tolerance


def test_negative_controls_of_the_closed_form() -> None:
    """A constant decay, and a warm-up that starts one step early or counts from 0, are far from the mean."""
    average = AveragedNetwork(0.99)
    iterates = walk(average, 60)
    for wrong in (lambda k: 0.99, lambda k: 1 - 1 / k, lambda k: 1 - 1 / (k + 2)):
        a = [wrong(k) for k in range(1, 61)]
        weights = [math.prod(a)] + [(1 - a[i]) * math.prod(a[i + 1 :]) for i in range(60)]
        assert sum(weights) == pytest.approx(1.0)
        assert far(averages(average), weighted(iterates, weights)) > 1e-3


def test_a_step_without_an_update_counts_for_the_warm_up() -> None:
    """a depends on the step: only the steps whose coin was below the rate have a weight."""
    average = AveragedNetwork(0.95, rate=0.4, seed=3)
    coins: list[float] = []
    draw = average.coin

    def coin() -> float:
        coins.append(draw())
        return coins[-1]

    average.coin = coin  # type: ignore[method-assign]
    iterates = walk(average, 80, dtype=torch.float64)
    assert average.steps == 80
    assert average.updates == sum(value < 0.4 for value in coins)
    by_step = product_weights(80, 0.95, lambda k: coins[k - 1] < 0.4)
    assert far(averages(average), weighted(iterates, by_step)) < 1e-13
    a, seen = [], 0
    for value in coins:  # the warm-up by the number of updates instead
        seen += value < 0.4
        a.append(min(1 - 1 / (seen + 1), 0.95) if value < 0.4 else 1.0)
    by_update = [math.prod(a)] + [(1 - a[i]) * math.prod(a[i + 1 :]) for i in range(80)]
    assert far(averages(average), weighted(iterates, by_update)) > 1e-3


def deviation(rate: float, draw: Callable[[AveragedNetwork], Callable[[], float]]) -> float:
    """The number of updates in 4000 steps, in standard deviations from n r of the binomial distribution."""
    n, model = 4000, nn.Linear(1, 1)
    average = AveragedNetwork(0.9, rate=rate, seed=11)
    average.follow(model)
    average.coin = draw(average)  # type: ignore[method-assign]
    for _ in range(n):
        average.step_()
    return (average.updates - n * rate) / math.sqrt(n * rate * (1 - rate))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.7, 0.9])
def test_the_rate_of_updates_is_binomial(rate: float) -> None:
    """With the normal draws of a public re-implementation in place of uniform ones it is not."""
    assert abs(deviation(rate, lambda average: average.coin)) < 4
    normal = torch.Generator().manual_seed(0)
    wrong = abs(deviation(rate, lambda _: lambda: torch.randn((), generator=normal).item()))
    assert wrong > 4


def test_rates_0_and_1_are_certain() -> None:
    for rate, expected in ((0.0, 0), (1.0, 500)):
        average = AveragedNetwork(0.9, rate=rate)
        walk(average, 500)
        assert average.updates == expected


def test_coins_come_from_a_generator_of_its_own() -> None:
    state = torch.get_rng_state()
    average, other = AveragedNetwork(0.9, 0.5, seed=1), AveragedNetwork(0.9, 0.5, seed=2)
    first = [average.coin() for _ in range(50)]
    assert torch.equal(state, torch.get_rng_state())
    assert first == [AveragedNetwork(0.1, 0.2, seed=1).coin() for _ in range(1)] + first[1:]
    assert first != [other.coin() for _ in range(50)]
    assert all(0.0 <= value < 1.0 for value in first)


def test_the_decay_of_a_step() -> None:
    assert [decay(k, 0.75) for k in (1, 2, 3, 4, 100)] == [0.5, pytest.approx(2 / 3), 0.75, 0.75, 0.75]


def test_average_is_exact_at_both_ends() -> None:
    theta, mean = [torch.randn(50) * 1e6], [torch.randn(50) * 1e-6]
    before = mean[0].clone()
    average_(mean, theta, 1.0)
    assert torch.equal(mean[0], before)
    average_(mean, theta, 0.0)
    assert torch.equal(mean[0], theta[0])


def normed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2))


def steps_with_batch_norm(statistics: Statistics, passes: bool) -> tuple[nn.Sequential, AveragedNetwork, list[Tensor]]:
    """Three steps of a network that has batch norm; returns it, its average and its running means."""
    torch.manual_seed(0)
    model = normed()
    average = AveragedNetwork(0.99, statistics=statistics)
    average.follow(model)
    means = [model[1].running_mean.clone()]
    for _ in range(3):
        model(torch.randn(8, 4) + 3.0)
        if passes:
            average(torch.randn(8, 4) - 3.0)
        average.step_()
        means.append(model[1].running_mean.clone())
    return model, average, means


def norm_of(average: AveragedNetwork) -> nn.BatchNorm1d:
    assert isinstance(average.network, nn.Sequential)
    layer = average.network[1]
    assert isinstance(layer, nn.BatchNorm1d)
    return layer


def test_statistics_by_ema_are_averaged_like_weights() -> None:
    _, average, means = steps_with_batch_norm("ema", passes=True)
    assert not average.needs_passes
    torch.testing.assert_close(norm_of(average).running_mean, torch.stack(means).mean(0))


def test_statistics_by_copy_are_the_networks_latest_with_or_without_an_update() -> None:
    model, average, _ = steps_with_batch_norm("copy", passes=True)
    assert torch.equal(norm_of(average).running_mean, model[1].running_mean)
    assert torch.equal(norm_of(average).running_var, model[1].running_var)
    average.rate = 0.0
    model(torch.randn(8, 4))
    average.step_()
    assert torch.equal(norm_of(average).running_mean, model[1].running_mean)


def test_statistics_by_passes_are_those_of_what_it_was_shown() -> None:
    torch.manual_seed(0)
    model = normed()
    average = AveragedNetwork(0.99, rate=0.0)
    average.follow(model)
    assert average.needs_passes
    reference = copy.deepcopy(model)
    reference[2].eval()
    x = torch.randn(8, 4) - 3.0
    state = torch.get_rng_state()
    output = average(x)
    assert torch.equal(state, torch.get_rng_state())  # dropout is off
    assert not output.requires_grad
    assert torch.equal(output, reference(x))
    assert torch.equal(norm_of(average).running_mean, reference[1].running_mean)
    assert not torch.equal(norm_of(average).running_mean, model[1].running_mean)


def test_one_sample_is_no_batch_to_measure() -> None:
    average = AveragedNetwork(0.99)
    average.follow(normed())
    before = norm_of(average).running_mean.clone()
    assert torch.isfinite(average(torch.randn(1, 4))).all()
    assert torch.equal(before, norm_of(average).running_mean)
    assert norm_of(average).training


def test_a_layer_that_is_kept_in_eval_mode_is_so_in_the_copy() -> None:
    model = normed()
    model[1].eval()
    average = AveragedNetwork(0.99)
    average.follow(model)
    before = norm_of(average).running_mean.clone()
    average(torch.randn(8, 4) + 5.0)
    assert not average.needs_passes
    assert torch.equal(before, norm_of(average).running_mean)


@pytest.mark.parametrize("statistics", ["buffer-forward", "ema", "copy"])
def test_followed_again_nothing_that_was_averaged_changes(statistics: Statistics) -> None:
    model, average, _ = steps_with_batch_norm(statistics, passes=True)
    before = {name: value.clone() for name, value in average.values().items()}
    average.follow(model)
    assert before.keys() == average.values().keys()
    assert all(torch.equal(value, average.values()[name]) for name, value in before.items())


def test_a_grown_head_keeps_its_old_rows_and_starts_the_new_ones_as_copies() -> None:
    average = AveragedNetwork(0.9)
    walk(average, 20)
    old = [p.clone() for p in averages(average)]
    grown = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 6))
    average.follow(grown)
    new = averages(average)
    assert torch.equal(new[2][:3], old[2])
    assert torch.equal(new[2][3:], grown[2].weight[3:])
    assert torch.equal(new[3], torch.cat([old[3], grown[2].bias[3:]]))
    assert torch.equal(new[0], old[0])
    before = new[2].clone()
    with torch.no_grad():
        grown[2].weight += 1.0
    average.step_()
    torch.testing.assert_close(averages(average)[2], before + 0.1 * (grown[2].weight - before))


def test_the_copy_is_apart_from_the_network() -> None:
    model = normed()
    average = AveragedNetwork(0.9)
    average.follow(model)
    places = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert average.network is not None
    assert all(tensor.data_ptr() not in places for tensor in average.network.state_dict().values())
    assert not any(p.requires_grad for p in average.network.parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("statistics", ["buffer-forward", "ema", "copy"])
def test_saved_and_restored_it_goes_on_bit_equal(statistics: Statistics) -> None:
    def go_on(model: nn.Module, average: AveragedNetwork) -> dict[str, Tensor]:
        torch.manual_seed(5)
        for _ in range(9):
            model(torch.randn(8, 4))
            average(torch.randn(8, 4))
            with torch.no_grad():
                for p in model.parameters():
                    p += 0.1 * torch.randn_like(p)
            average.step_()
        return average.values()

    model, average, _ = steps_with_batch_norm(statistics, passes=True)
    average.rate = 0.5
    twin, restored = copy.deepcopy(model), AveragedNetwork(0.99, 0.5, statistics, seed=99)
    restored.load_state_dict(copy.deepcopy(average.state_dict()))
    saved = average.state_dict()["values"]
    assert all(torch.equal(value, restored.values()[name]) for name, value in saved.items())
    restored.follow(twin)
    one, other = go_on(model, average), go_on(twin, restored)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert restored.steps == average.steps == 12
    assert restored.updates == average.updates
    assert any(not torch.equal(value, one[name]) for name, value in saved.items())


def test_bytes_are_those_of_one_more_network() -> None:
    average = AveragedNetwork(0.9)
    assert average.bytes() == 0
    model = normed()
    average.follow(model)
    assert average.bytes() == sum(tensor.nbytes for tensor in model.state_dict().values())
