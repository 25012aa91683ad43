"""The slow/fast pair: what it computes with masks of one and of zero, its shapes and sizes, who is refused."""

from typing import Any

import cl_ext  # noqa: F401
from cl_ext.models import Network, NetworkSpec, build_network, dualnet, dualnet_resnet18
from cl_ext.models.slowfast import SlowFast, slow_fast_of

import pytest
import torch
from torch import Tensor, nn

CASES: list[tuple[NetworkSpec, tuple[int, ...], int]] = [
    (NetworkSpec("mlp", hidden=(12, 9)), (1, 8, 8), 2),
    (NetworkSpec("mlp", hidden=(12, 9)), (20,), 2),
    (NetworkSpec("cnn", width=4), (3, 8, 8), 3),
    (NetworkSpec("cnn", width=4), (1, 15, 15), 3),
    (NetworkSpec("cnn", width=4), (1, 10, 10), 3),
    (NetworkSpec("resnet18", width=4), (3, 16, 16), 4),
    (NetworkSpec("resnet18", width=4), (3, 21, 21), 4),
]
each = pytest.mark.parametrize(("spec", "shape", "stages"), CASES, ids=lambda v: getattr(v, "name", str(v)))


def _pair(spec: NetworkSpec, shape: tuple[int, ...]) -> tuple[Network, Network]:
    """An ordinary network and the pair made of it, which shares its layers, in eval mode."""
    torch.manual_seed(0)
    model = build_network(spec, shape, 5)
    return model.eval(), dualnet(model, shape)


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor(self.value)


def _masked(pair: Network, value: float) -> Network:
    trunk = slow_fast_of(pair)
    trunk.fast = nn.ModuleList(_Constant(value) for _ in trunk.fast)
    return pair


@each
def test_masks_of_one_leave_the_network_that_it_was_made_of(spec: NetworkSpec, shape: Any, stages: int) -> None:
    model, pair = _pair(spec, shape)
    x = torch.randn(3, *shape)
    assert len(slow_fast_of(pair).slow) == stages
    assert not torch.allclose(pair(x), model(x))
    assert torch.equal(slow_fast_of(pair).embed(x), model.features(x))
    assert torch.equal(_masked(pair, 1.0)(x), model(x))


@each
def test_masks_of_zero_leave_the_heads_bias(spec: NetworkSpec, shape: Any, stages: int) -> None:
    _, pair = _pair(spec, shape)
    bias = pair.classifier.bias
    assert torch.equal(_masked(pair, 0.0)(torch.randn(3, *shape)), bias.expand(3, -1))


@each
def test_adaptation_step_by_step(spec: NetworkSpec, shape: Any, stages: int) -> None:
    """h'_1 = g_1(x) * h_1, h'_l = g_l(h'_{l-1}) * h_l; masks are >= 0, not all alike, and fit the maps elementwise."""
    _, pair = _pair(spec, shape)
    trunk, x = slow_fast_of(pair), torch.randn(3, *shape)
    h, adapted = x, x
    for phi, g, mask in zip(trunk.slow, trunk.fast, trunk.masks(x), strict=True):
        h, m = phi(h), g(adapted)
        assert m.shape == h.shape
        assert torch.equal(m, mask)
        assert (m >= 0).all()
        assert m.std() > 0
        adapted = m * h
    assert torch.equal(pair.classifier(trunk.tail(adapted)), pair(x))


@each
def test_the_slow_net_is_the_network_and_new_weights_are_the_global_generators(
    spec: NetworkSpec, shape: Any, stages: int
) -> None:
    model, pair = _pair(spec, shape)
    _, again = _pair(spec, shape)
    own = {id(p) for p in model.parameters()}
    assert own < {id(p) for p in pair.parameters()}
    assert all(torch.equal(a, b) for a, b in zip(pair.parameters(), again.parameters(), strict=True))
    assert not any(id(p) in own for p in slow_fast_of(pair).fast.parameters())


def test_the_papers_pair_has_its_size() -> None:
    """Measured by the spec on an independent build: slow 11.17 M, fast and head 1.60 M (85 classes)."""
    pair = dualnet_resnet18(85)
    trunk = slow_fast_of(pair)
    fast = [*trunk.fast.parameters(), *pair.classifier.parameters()]
    assert sum(p.numel() for p in trunk.slow.parameters()) == 11_168_832
    convolutions = sum(9 * a * b + b + 2 * b for a, b in ((3, 64), (64, 128), (128, 256), (256, 512)))
    assert sum(p.numel() for p in fast) == convolutions + 512 * 85 + 85 == 1_596_501


@pytest.mark.parametrize(("size", "maps"), [(84, (42, 21, 11, 6)), (33, (17, 9, 5, 3)), (32, (16, 8, 4, 2))])
def test_the_papers_pair_on_odd_sizes(size: int, maps: tuple[int, ...]) -> None:
    """84 halves to 21, odd: both paths round up. With floor pooling the fast one would have 10."""
    pair = dualnet_resnet18(4, width=2)
    x = torch.randn(2, 3, size, size)
    assert tuple(mask.shape[-1] for mask in slow_fast_of(pair).masks(x)) == maps
    assert pair(x).shape == (2, 4)
    for block in slow_fast_of(pair).fast:
        block[-1].ceil_mode = False
    if size != 32:
        with pytest.raises(RuntimeError, match="size of tensor"):
            pair(x)


def test_a_pair_made_for_one_size_takes_others_where_the_network_does() -> None:
    _, pair = _pair(NetworkSpec("resnet18", width=2), (3, 16, 16))
    assert pair(torch.randn(2, 3, 21, 21)).shape == (2, 5)


def test_poolings_that_no_plain_one_matches() -> None:
    """An unpadded convolution before the pooling: 12 -> 10 -> 5."""
    model = Network(
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(75, 6), nn.ReLU()),
        nn.Linear(6, 2),
    )
    masks = slow_fast_of(dualnet(model, (1, 12, 12))).masks(torch.randn(2, 1, 12, 12))
    assert [tuple(m.shape) for m in masks] == [(2, 3, 5, 5), (2, 6)]


def test_batch_norm_only_where_the_stage_has_it() -> None:
    for spec, shape, kind in ((CASES[5][0], (3, 16, 16), nn.BatchNorm2d), (CASES[2][0], (3, 8, 8), nn.GroupNorm)):
        _, pair = _pair(spec, shape)
        norms = [m for m in slow_fast_of(pair).fast.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
        assert norms
        assert all(isinstance(norm, kind) for norm in norms)


def test_modes_and_random_state_of_making_one() -> None:
    model = Network(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout()), nn.Linear(3, 2))
    model.features[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pair = dualnet(model, (4,))
    assert not model.features[1].training
    assert pair.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class _Other(nn.Module):
    """features and classifier, but something else in between."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        nn.init.eye_(self.features[0].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.features[0].bias)  # type: ignore[arg-type]
        self.classifier = nn.Linear(4, 2)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.between(self.features(x)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(4, 2)), "Sequential is not"),
        (Network(nn.Linear(4, 3), nn.Linear(3, 2)), "Network is not"),
        (Network(nn.Sequential(nn.Flatten()), nn.Linear(4, 2)), "features of Network have none"),
        (_Other(nn.Tanh()), "_Other computes something else"),
        (Network(nn.Sequential(nn.Linear(5, 3), nn.ReLU()), nn.Linear(3, 2)), r"Network on a sample of \(4,\)"),
    ],
)
def test_networks_of_another_form_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        dualnet(model, (4,))
    assert len(str(caught.value)) < 250


def test_another_form_is_seen_where_one_sign_of_a_sample_leaves_every_unit_at_zero() -> None:
    model = _Other(nn.Tanh())
    with torch.no_grad():
        model.features[0].weight.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 4))  # the sample begins with -1
    with pytest.raises(TypeError, match="_Other computes something else"):
        dualnet(model, (4,))


def test_a_pair_of_a_pair_is_refused_and_a_network_without_one() -> None:
    model, pair = _pair(*CASES[0][:2])
    with pytest.raises(TypeError, match="Network is not"):
        dualnet(pair, CASES[0][1])
    with pytest.raises(TypeError, match="Network has 0: make the pair with"):
        slow_fast_of(model)
    with pytest.raises(ValueError, match="as many slow as fast stages, got 1 and 0"):
        SlowFast([nn.Identity()], [], nn.Identity())
