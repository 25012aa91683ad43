"""Merging against sums over lists and joint optima, swaps bit for bit, drop-transfer by its definition."""

import copy
from typing import Any

from cl_ext.nn.drop_transfer import DropTransfer
from cl_ext.nn.merging import RunningMerge, WeightSwap, estimated_statistics, running_statistics, write_

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

SHAPES = {"a": (3, 2), "b": (4,)}
Network = dict[str, Tensor]


def draw(count: int, seed: int = 0) -> tuple[list[Network], list[Network]]:
    """Weights and Fishers of so many networks."""
    g = torch.Generator().manual_seed(seed)
    theta = [{n: torch.randn(s, generator=g, dtype=torch.float64) for n, s in SHAPES.items()} for _ in range(count)]
    fisher = [{n: torch.rand(s, generator=g, dtype=torch.float64) * 5 + 0.01 for n, s in SHAPES.items()} for _ in theta]
    return theta, fisher


def shares(count: int, alpha: float | None) -> list[float]:
    if alpha is None or count == 1:
        return [1 / count] * count
    return [(1 - alpha) / (count - 1)] * (count - 1) + [alpha]


def by_list(theta: list[Network], fisher: list[Network] | None, alpha: float | None) -> Network:
    """sum_k alpha_k F_k theta_k / sum_k alpha_k F_k over all networks, kept in a list."""
    fisher = fisher or [{n: torch.ones_like(t) for n, t in theta[0].items()}] * len(theta)
    weight = shares(len(theta), alpha)
    return {
        n: sum(a * f[n] * t[n] for a, f, t in zip(weight, fisher, theta, strict=True))
        / sum(a * f[n] for a, f in zip(weight, fisher, strict=True))
        for n in theta[0]
    }


def running(theta: list[Network], fisher: list[Network] | None, alpha: float | None) -> Network:
    merge = RunningMerge(weighted=fisher is not None)
    merged: list[Tensor] = []
    for k, weights in enumerate(theta):
        merge.align(weights)
        f: list[Any] = [1.0] * len(weights) if fisher is None else list(fisher[k].values())
        merged = merge.merged(list(weights.values()), f, alpha)
        merge.add_(list(weights.values()), f)
    return dict(zip(theta[-1], merged, strict=True))


def close(a: Network, b: Network) -> None:
    for name in b:
        torch.testing.assert_close(a[name], b[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha", [None, 0.05, 0.4, 0.9, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("weighted", [False, True])
def test_two_running_sums_equal_the_list(weighted: bool, count: int, alpha: float | None) -> None:
    theta, fisher = draw(count)
    close(running(theta, fisher if weighted else None, alpha), by_list(theta, fisher if weighted else None, alpha))


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_equal_fishers_make_the_mode_the_mean(alpha: float | None) -> None:
    theta, fisher = draw(4)
    close(running(theta, [fisher[0]] * 4, alpha), running(theta, None, alpha))


def test_the_mode_is_the_joint_optimum_of_independent_quadratics() -> None:
    """min sum_k F_k (t - theta_k)^2 / 2 by a linear solve of its stationarity; the mean is not it."""
    theta, fisher = draw(3)
    merged = running(theta, fisher, None)
    for name, m in merged.items():
        hessian = torch.diag(sum(f[name].flatten() for f in fisher))
        pull = sum((f[name] * t[name]).flatten() for f, t in zip(fisher, theta, strict=True))
        torch.testing.assert_close(m.flatten(), torch.linalg.solve(hessian, pull), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(merged["a"], running(theta, None, None)["a"], rtol=0.05)


@pytest.mark.parametrize("weighted", [False, True])
def test_identities_bit_for_bit(weighted: bool) -> None:
    """alpha = e_K gives theta_K, one network itself, and equal networks themselves."""
    theta, fisher = draw(5)
    f = fisher if weighted else None
    assert all(torch.equal(running(theta, f, 1.0)[n], theta[-1][n]) for n in SHAPES)
    assert all(torch.equal(running(theta[:1], f and f[:1], None)[n], theta[0][n]) for n in SHAPES)
    assert all(torch.equal(running([theta[0]] * 5, f, 0.3)[n], theta[0][n]) for n in SHAPES)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [None, 0.3])
def test_grown_entries_are_merged_over_the_networks_that_had_them(weighted: bool, alpha: float | None) -> None:
    theta, fisher = draw(3)
    old = [{n: t[:2].clone() for n, t in each.items()} for each in (theta[0], fisher[0])]
    merged = running([old[0], *theta[1:]], [old[1], *fisher[1:]] if weighted else None, alpha)
    all_three = by_list(theta, fisher if weighted else None, alpha)
    last_two = by_list(theta[1:], fisher[1:] if weighted else None, alpha)
    close({n: m[:2] for n, m in merged.items()}, {n: m[:2] for n, m in all_three.items()})
    close({n: m[2:] for n, m in merged.items()}, {n: m[2:] for n, m in last_two.items()})


def test_negative_control_new_entries_are_not_merged_with_zeros() -> None:
    theta, _ = draw(2)
    padded = {n: torch.cat([t[:2], torch.zeros_like(t[2:])]) for n, t in theta[0].items()}
    faulty = by_list([padded, theta[1]], None, None)
    ours = running([{n: t[:2] for n, t in theta[0].items()}, theta[1]], None, None)
    torch.testing.assert_close(ours["a"][2:], theta[1]["a"][2:], rtol=0, atol=0)
    assert not torch.allclose(faulty["a"][2:], ours["a"][2:], rtol=0.1)


def test_a_state_goes_on_bit_equal() -> None:
    theta, fisher = draw(3)
    first, second = RunningMerge(True), RunningMerge(True)
    for k in range(2):
        first.align(theta[k])
        first.add_(list(theta[k].values()), list(fisher[k].values()))
    second.load_state_dict(first.state_dict())
    second.align(theta[2])
    arguments: Any = (list(theta[2].values()), list(fisher[2].values()), 0.4)
    assert all(torch.equal(a, b) for a, b in zip(first.merged(*arguments), second.merged(*arguments), strict=True))
    assert first.bytes() == 3 * 8 * 10


def test_swaps_come_back_bit_for_bit() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {n: t.clone() for n, t in model.state_dict().items()}
    values = {"0.weight": torch.full((2, 3), 0.5), "1.running_mean": torch.ones(2), "gone": torch.ones(1)}
    swap = WeightSwap()

    @swap(model, values)
    def inside() -> None:
        assert torch.equal(model[0].weight, values["0.weight"])
        assert torch.equal(model[1].running_mean, torch.ones(2))
        assert torch.equal(model[0].bias, before["0.bias"])
        assert swap.bytes() == 4 * 8
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        inside()
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert swap.bytes() == 0
    swap.enter(model, values)
    swap.enter(model, values)  # the first was interrupted
    swap.leave(model)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_a_network_that_grows_while_others_weights_are_in_it() -> None:
    """The old entries come back, the new ones stay as they were made."""
    model = nn.Sequential(nn.Linear(3, 2))
    own, swap = model[0].weight.detach().clone(), WeightSwap()
    swap.enter(model, {"0.weight": torch.zeros(2, 3)})
    wide = nn.Linear(3, 4)
    new = wide.weight[2:].detach().clone()
    with torch.no_grad():
        wide.weight[:2] = model[0].weight
    model[0] = wide
    swap.leave(model)
    assert torch.equal(wide.weight, torch.cat([own, new]))
    write_(model, {"0.weight": torch.ones(2, 3)})
    assert torch.equal(wide.weight, torch.cat([torch.ones(2, 3), new]))


def test_statistics_are_those_of_the_data_and_nothing_changes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).double()
    x = torch.randn(128, 3, dtype=torch.float64)
    data = TensorDataset(x, torch.zeros(128, dtype=torch.long))
    model(x)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = estimated_statistics(model, data)
    h = model[0](x)
    torch.testing.assert_close(found["1.running_mean"], h.mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found["1.running_var"], h.var(0), rtol=1e-12, atol=1e-14)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert [m.training for m in model.modules()] == [True] * 5
    assert model[1].momentum == 0.1
    model[1].eval()  # a layer that its user keeps as it is
    assert torch.equal(estimated_statistics(model, data)["1.running_mean"], model[1].running_mean)
    model.train()
    one = TensorDataset(x[:1], torch.zeros(1, dtype=torch.long))
    assert torch.equal(estimated_statistics(model, one)["1.running_mean"], running_statistics(model)["1.running_mean"])


def test_negative_control_averaged_statistics_are_wrong() -> None:
    """Two networks with opposite weights: the merged one puts out zero, but their variances average to one."""
    x = torch.randn(1000, 1, dtype=torch.float64)
    models = [nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, momentum=1.0)).double() for _ in range(2)]
    for model, sign in zip(models, (1.0, -1.0), strict=True):
        nn.init.constant_(model[0].weight, sign)
        model(x)
    averaged = sum(float(model[1].running_var) for model in models) / 2
    nn.init.zeros_(models[0][0].weight)
    true = estimated_statistics(models[0], TensorDataset(x, torch.zeros(1000)))["1.running_var"]
    assert averaged > 0.9
    assert float(true) == 0.0


def _masks(drop: DropTransfer, shape: tuple[int, ...], like: Tensor, seed: int) -> Tensor:
    drop.seed(seed)
    mask = drop.mask(shape, like)
    drop.seed(seed)
    return mask


def test_drop_transfer_of_a_linear_layer_is_its_definition() -> None:
    """Each sample's effective matrix built in full; the gradients by autograd of that."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3)).double()
    previous = torch.randn(3, 4, dtype=torch.float64)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    drop = DropTransfer(0.6)
    drop.attach(model, {"0.weight": previous})
    m = _masks(drop, (5, 4), x, 3)
    assert set(m.unique().tolist()) == {0.0, 1 / 0.6}
    output = model(x)
    w = model[0].weight
    effective = previous + m.unsqueeze(1) * (w - previous)  # (B, out, in)
    expected = torch.einsum("noi,ni->no", effective, x) + model[0].bias
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-13)
    variables = [x, w, model[0].bias]
    c = torch.randn(5, 3, dtype=torch.float64)
    found, by_definition = (torch.autograd.grad((out * c).sum(), variables) for out in (output, expected))
    for a, b in zip(found, by_definition, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("groups", [1, 2])
def test_drop_transfer_of_a_convolution_drops_channels(groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 2, 3, padding=1, stride=2, groups=groups).double()
    model, previous = nn.Sequential(layer), torch.randn_like(layer.weight)
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    drop = DropTransfer(0.5)
    drop.attach(model, {"0.weight": previous})
    m = _masks(drop, (3, 4, 1, 1), x, 1)
    output = model(x)
    each = []
    for n in range(3):
        rows = m[n].view(groups, 1, 4 // groups, 1, 1).expand(groups, 2 // groups, -1, -1, -1)
        effective = previous + rows.reshape(2, 4 // groups, 1, 1) * (layer.weight - previous)
        each.append(functional.conv2d(x[n : n + 1], effective, layer.bias, 2, 1, groups=groups))
    torch.testing.assert_close(output, torch.cat(each), rtol=1e-12, atol=1e-13)


def test_drop_transfer_has_the_full_weights_on_average() -> None:
    """E W_eff = W; and in eval mode, or where nothing has moved, the layer itself."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3)).double()
    x, previous = torch.randn(1, 4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)
    plain = model(x)
    drop = DropTransfer(0.5)
    drop.attach(model, {"0.weight": previous})
    outputs = model(x.expand(40000, 4))
    deviation = ((model[0].weight * x).square().sum(1) / 40000).sqrt()  # (1 - keep) / keep = 1
    assert bool(((outputs.mean(0) - plain[0]).abs() < 5 * deviation).all())
    assert float(outputs.detach().std(0).min()) > 0.1
    model.eval()
    assert torch.equal(model(x), plain)
    model.train()
    drop.attach(model, {"0.weight": model[0].weight.detach().clone()})
    torch.testing.assert_close(model(x), plain, rtol=1e-12, atol=1e-14)
    drop.detach()
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks


def test_masks_are_their_own_generators() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    state = torch.get_rng_state()
    drop = DropTransfer(0.5)
    drop.attach(model, {"0.weight": torch.zeros(3, 4)})
    x = torch.ones(6, 4)
    drop.seed(1)
    first, second = model(x), model(x)
    drop.seed(1)
    assert torch.equal(model(x), first)
    assert not torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
