"""Gates of hard attention: closed forms, enumeration by units, and the network that they gate."""

import math
from typing import Any

from cl_ext.models import NetworkSpec, build_network
from cl_ext.models.expansion import expandable
from cl_ext.nn.chain import chain
from cl_ext.nn.gated import Gated
from cl_ext.nn.gates import UpdateMask, compensation, gate, gated, slope, update_masks, used_share

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

DOUBLE = torch.float64


def _cnn() -> nn.Sequential:
    """Two convolutions, pooling, flattening, a linear layer: channels of 4 positions are read by the last."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(20, 6), nn.Tanh(),
    )  # fmt: skip


# ---- the slope and the gradient of the embedding ------------------------------------------------------------------


def test_the_slope_goes_evenly_from_one_over_s_max_to_s_max() -> None:
    """H5."""
    slopes = [slope(b, 9, 400.0) for b in range(1, 10)]
    assert slopes[0] == 1 / 400.0
    assert slopes[-1] == 400.0
    steps = torch.tensor(slopes, dtype=DOUBLE).diff()
    assert torch.allclose(steps, steps[:1].expand(8))
    assert slope(1, 1, 400.0) == 400.0
    official = 1 / 400 + (400 - 1 / 400) * 8 / 9  # counts batches from 0 and divides by their number
    assert official < slopes[-1]


@given(st.floats(-6, 6), st.floats(1 / 400, 400))
@settings(max_examples=60, deadline=None)
def test_compensated_gradients_are_those_of_slope_one_times_s_max(value: float, s: float) -> None:
    """H1, against autograd, where the exponent is not clamped."""
    s = min(s, (45 if value < 0 else 12) / max(abs(value), 1e-9))  # autograd's 1 - sigmoid loses its digits above
    e = torch.tensor([value], dtype=DOUBLE, requires_grad=True)
    (q,) = torch.autograd.grad(torch.sigmoid(s * e).sum(), e)
    (plain,) = torch.autograd.grad(torch.sigmoid(e).sum(), e)
    assert torch.allclose(q * compensation(e.detach(), s, 400.0), 400.0 * plain, rtol=1e-6)


def test_compensation_stays_finite_where_the_gates_are_shut() -> None:
    e = torch.tensor([-6.0, 6.0])
    assert torch.isfinite(compensation(e, 400.0, 400.0)).all()
    assert not torch.isfinite((400.0 * e).cosh()).any()  # without the clamp


# ---- R ------------------------------------------------------------------------------------------------------------


def test_the_share_of_the_free_capacity_by_hand() -> None:
    """H2."""
    a, A = torch.tensor([1.0, 0.5, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.5, 0.5])
    assert used_share(a, A) == (0 + 0.5 + 0 + 0.5) / (0 + 1 + 0.5 + 0.5)
    assert used_share(a, None) == a.mean()
    old = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert used_share(old, old) == 0  # units of earlier tasks cost nothing
    assert used_share(1 - old, old) == 1
    full = used_share(a.requires_grad_(), torch.ones(4))  # nothing is free
    assert full == 0
    assert torch.autograd.grad(1e3 * full, a)[0].tolist() == [0, 0, 0, 0]


@given(st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_share_lies_between_0_and_1(units: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, A = torch.rand(2, units, generator=generator, dtype=DOUBLE)
    assert 0 <= used_share(a, A) <= 1
    used = used_share(a.requires_grad_(), A)
    (gradient,) = torch.autograd.grad(used, a)
    assert torch.allclose(gradient, (1 - A) / (1 - A).sum())


# ---- masks of updates ---------------------------------------------------------------------------------------------


def _by_units(features: nn.Sequential, A: Tensor) -> dict[str, Tensor]:
    """The masks entry by entry, for every weight that is not batch norm's."""
    masks: dict[str, Tensor] = {}
    before: list[float] | None = None
    start = 0
    for name, module in features.named_children():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        units, inputs = module.weight.shape[:2]
        own = A[start : start + units].tolist()
        start += units
        weight = torch.zeros_like(module.weight)
        for i in range(units):
            for j in range(inputs):
                if before is None:
                    weight[i, j] = 1 - own[i]
                else:
                    source = before[j // (inputs // len(before))]  # the channel that column j is a position of
                    weight[i, j] = 1 - min(own[i], source)
        masks[f"{name}.weight"] = weight
        masks[f"{name}.bias"] = torch.tensor([1 - value for value in own])
        before = own
    return masks


def test_masks_of_updates_are_those_of_the_equations_unit_by_unit() -> None:
    features = _cnn()
    A = torch.rand(14, generator=torch.Generator().manual_seed(0))
    ours, theirs = update_masks(chain(features, 6), A), _by_units(features, A)
    assert ours.keys() == theirs.keys()
    for name, mask in theirs.items():
        assert torch.allclose(ours[name].expand_as(mask), mask), name


def test_a_step_goes_the_share_of_the_way_that_the_mask_says() -> None:
    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.randn(4, 3, 2, 2, generator=generator))
    mask = torch.tensor([0.0, 1.0, 0.25, 1.0]).view(4, 1, 1, 1).expand(4, 3, 1, 1).clone()
    guard = UpdateMask([parameter], [mask])
    for _ in range(3):
        old = parameter.detach().clone()
        new = old + torch.randn(old.shape, generator=generator)
        parameter.data.copy_(new)
        guard.apply()
        assert torch.equal(parameter[0], old[0])
        assert torch.equal(parameter[[1, 3]], new[[1, 3]])
        assert torch.allclose(parameter[2], old[2] + 0.25 * (new[2] - old[2]))


def test_a_step_that_is_not_finite_does_not_get_through_a_closed_mask() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, 4.0]))
    guard = UpdateMask([parameter], [torch.tensor([0.0, 0.0, 1.0, 0.5])])
    for _ in range(2):
        parameter.data.copy_(torch.tensor([math.nan, math.inf, 5.0, 6.0]))
        guard.apply()
        assert parameter[:3].tolist() == [1.0, -2.0, 5.0]
    # the control: the arithmetic alone lets it through
    assert torch.tensor([1.0]).lerp_(torch.tensor([math.nan]), torch.zeros(1)).isnan().item()


def test_gradients_are_masked_where_nothing_can_move() -> None:
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    parameters[0].grad = torch.ones(2, 2)
    guard = UpdateMask(parameters, [torch.tensor([[0.0, 0.5], [1.0, 0.0]]), torch.zeros(2)])
    guard.mask_gradients()
    assert parameters[0].grad.tolist() == [[0, 1], [1, 0]]
    assert parameters[1].grad is None


# ---- the gated network --------------------------------------------------------------------------------------------


def _scheme(e: Tensor, s_test: float = 400.0) -> Gated:
    scheme = Gated(s_test)
    scheme.begin(0, e)
    return scheme


def test_gates_follow_slope_and_mode() -> None:
    e = torch.tensor([-0.02, 0.0, 0.01, 3.0])
    scheme = _scheme(e)
    scheme.s.fill_(2.0)
    assert torch.allclose(scheme.train().gates(0), torch.sigmoid(2 * e))
    assert torch.allclose(scheme.eval().gates(0), torch.sigmoid(400 * e))
    scheme.begin(1, -e)
    assert torch.allclose(scheme.train().gates(0), torch.sigmoid(400 * e))  # finished, in train mode, too
    assert torch.allclose(scheme.gates(1), torch.sigmoid(-2 * e))
    assert gate(e, torch.tensor(math.inf)).tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="task 2 has no gates"):
        scheme.gates(2)


def test_every_layer_is_gated_channel_by_channel_behind_its_activation() -> None:
    features = _cnn().double().eval()
    e = torch.randn(14, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    scheme = _scheme(e, s_test=2.0).eval()
    x = torch.randn(4, 2, 8, 8, dtype=DOUBLE)
    x = x[:, :, :8, :8]
    a = torch.sigmoid(2 * e)
    conv1, norm, _, pool1, conv2, _, pool2, flat, linear, _ = features
    h = pool1(torch.relu(norm(conv1(x))) * a[:3].view(1, 3, 1, 1))
    h = pool2(torch.relu(conv2(h)) * a[3:8].view(1, 5, 1, 1))
    z = torch.tanh(linear(flat(h))) * a[8:]
    assert torch.allclose(scheme.read(features, x, 0), z, atol=1e-12)


def test_open_gates_leave_the_network_as_it_is() -> None:
    features = _cnn().eval()
    x = torch.randn(4, 2, 8, 8)
    assert torch.equal(_scheme(torch.full((14,), 6.0)).eval().read(features, x, 0), features(x))


def test_flattened_channels_share_a_gate() -> None:
    h, a = torch.arange(12.0).view(2, 6), torch.tensor([0.0, 1.0, 2.0])
    assert gated(h, a).tolist() == [[0, 0, 2, 3, 8, 10], [0, 0, 8, 9, 20, 22]]


def test_cumulative_gates_are_the_maximum_over_finished_tasks() -> None:
    scheme = _scheme(torch.tensor([1.0, -1.0, 0.01]))
    assert scheme.cumulative() is None
    scheme.begin(1, torch.tensor([-1.0, -1.0, -0.01]))
    assert torch.allclose(scheme.cumulative(), torch.sigmoid(400 * torch.tensor([1.0, -1.0, 0.01])))  # type: ignore[arg-type]
    scheme.begin(5, torch.zeros(3))
    assert torch.allclose(scheme.cumulative(), torch.sigmoid(400 * torch.tensor([1.0, -1.0, 0.01])))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_effective_weights_are_what_a_task_with_hard_gates_reads(name: str) -> None:
    """What is left out has no part in the output: a plain network with the effective weights gives the same."""
    torch.manual_seed(0)
    spec: Any = NetworkSpec("mlp", hidden=(7, 5)) if name == "mlp" else NetworkSpec("cnn", width=3)
    network = expandable(build_network(spec, (1, 8, 8), 4)).eval()
    scheme = _scheme(torch.randn(sum(stage.units for stage in network.stages)), math.inf).eval()
    effective = scheme.effective(network.features, 0)
    x = torch.randn(5, 1, 8, 8)
    z = scheme.read(network.features, x, 0)
    assert 0 < sum(int(t.count_nonzero()) for t in effective.values()) < sum(t.numel() for t in effective.values())
    assert torch.allclose(torch.func.functional_call(network.features, effective, (x,)), z, atol=1e-6)


def test_a_finished_tasks_batch_norm_is_its_own() -> None:
    """Negative control: with the network's batch norm its output moves."""
    features = _cnn().train()
    scheme = _scheme(torch.full((14,), 6.0))
    x = torch.randn(8, 2, 8, 8)
    scheme.read(features, x, 0)
    scheme.finish(features, 0)
    features.eval()
    before = scheme.read(features, x, 0)
    with torch.no_grad():
        features[1].weight.mul_(2)  # type: ignore[operator]
    features.train()(x + 3)
    statistics = [t.clone() for t in features.buffers()]
    assert torch.equal(scheme.train().read(features, x, 0), before)
    assert all(torch.equal(a, b) for a, b in zip(statistics, features.buffers(), strict=True))
    scheme.norms.drop(0)
    features.eval()
    assert not torch.allclose(scheme.read(features, x, 0), before)
