"""Sums of squared per-sample gradients: every fast form against the loop over samples, in float64."""

from collections.abc import Callable

from cl_ext.nn.per_sample import PerSampleSums, module_sums, sums_by_loop, sums_function

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

B, K = 7, 5


class Tokens(nn.Module):
    """A linear layer on (B, T, in), a layer norm, a free parameter of a container."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.out = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, K)
        self.scale = nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.out((self.norm(self.inner(x.view(len(x), 3, 4))) * self.scale).tanh().mean(1))


def _convolutional(**options: object) -> nn.Module:
    layers = [nn.Unflatten(1, (2, 6, 6)), nn.Conv2d(2, 4, 3, **options), nn.ReLU(inplace=True), nn.Flatten()]
    width = nn.Sequential(*layers)(torch.zeros(1, 72)).shape[1]
    return nn.Sequential(*layers, nn.Linear(width, K))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(12, 8), nn.ReLU(inplace=True), nn.Linear(8, K, bias=False)), 12),
    "conv": (lambda: _convolutional(padding=1, stride=2), 72),
    "grouped conv": (lambda: _convolutional(groups=2, dilation=2, bias=False), 72),
    "circular conv": (lambda: _convolutional(padding=1, padding_mode="circular"), 72),
    "same conv": (lambda: _convolutional(padding="same"), 72),
    "tokens": (Tokens, 12),
    "prelu": (lambda: nn.Sequential(nn.Linear(12, 8), nn.PReLU(8), nn.GroupNorm(2, 8), nn.Linear(8, K)), 12),
    "batch norm, eval": (lambda: nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, K)).eval(), 12),
}


def _make(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    build, width = NETWORKS[name]
    model = build().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(), module.running_var.uniform_(0.5, 2)
    return model, torch.randn(B, width, dtype=torch.float64), torch.randint(K, (B,))


def _recorded(model: nn.Module, x: Tensor, y: Tensor, reduction: str, weight: float) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    recorder = PerSampleSums()
    recorder.attach(model, list(parameters))
    model(x)  # an evaluation before it must leave no trace
    recorder.start()
    functional.cross_entropy(model(x), y, reduction=reduction).backward()
    recorder.stop(parameters)
    averages = {name: torch.full_like(p, 3.0).detach() for name, p in parameters.items()}
    recorder.update_(averages, 0.25, weight)
    recorder.detach()
    assert not any(module._forward_hooks for module in model.modules())
    return averages


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("reduction", "weight"), [("mean", B), ("sum", 1 / B)])
def test_recorded_squares_equal_the_loop(name: str, reduction: str, weight: float) -> None:
    model, x, y = _make(name)
    expected = sums_by_loop(model, functional.cross_entropy, x, y)
    for key, average in _recorded(model, x, y, reduction, weight).items():
        torch.testing.assert_close(average, 0.75 + expected[key] / B, rtol=1e-11, atol=1e-13)


def test_the_squared_batch_gradient_is_not_the_fisher() -> None:
    """Negative control: what several public codes call a Fisher is about 1/B of it, and fails the test above."""
    model, x, y = _make("mlp")
    expected = sums_by_loop(model, functional.cross_entropy, x, y)["0.weight"] / B
    functional.cross_entropy(model(x), y).backward()
    ratio = float(model[0].weight.grad.square().sum() / expected.sum())
    assert ratio < 0.5
    one = sums_by_loop(model, functional.cross_entropy, x[:1], y[:1])["0.weight"]
    model.zero_grad()
    functional.cross_entropy(model(x[:1]), y[:1]).backward()
    torch.testing.assert_close(model[0].weight.grad.square(), one)  # of one sample they are the same


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_closed_forms_equal_vmap(name: str) -> None:
    model, x, _ = _make(name)
    for module in model:
        out = module(x)
        if list(module.parameters()):
            d = torch.randn_like(out)
            closed = sums_function(module)(module, x.detach(), d, torch.square)
            for key, value in module_sums(module, x.detach(), d, torch.square).items():
                torch.testing.assert_close(closed[key], value, rtol=1e-12, atol=1e-13)
        x = out


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = _make("tokens")
    whole = _recorded(model, x, y, "mean", B)
    monkeypatch.setattr("cl_ext.nn.per_sample._CHUNK_FLOATS", 60)
    model.zero_grad()
    for key, value in _recorded(model, x, y, "mean", B).items():
        torch.testing.assert_close(value, whole[key], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.BatchNorm1d(8, track_running_stats=False)])
def test_batch_norm_in_train_mode_splits_the_batch_gradient_by_rows(layer: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), layer, nn.Tanh(), nn.Linear(8, K)).double()
    x, y = torch.randn(B, 12, dtype=torch.float64), torch.randint(K, (B,))
    kept: dict[str, Tensor] = {}
    model[0].register_forward_hook(lambda m, i, o: o.register_hook(lambda g: kept.update(linear=g)) and None)
    model[1].register_forward_hook(lambda m, i, o: o.register_hook(lambda g: kept.update(norm=g)) and None)
    z = model[0](x).detach()
    recorder, parameters = PerSampleSums(), dict(model.named_parameters())
    recorder.attach(model, list(parameters))
    recorder.start()
    functional.cross_entropy(model(x), y, reduction="sum").backward()
    recorder.stop(parameters)
    averages = {name: torch.zeros_like(p).detach() for name, p in parameters.items()}
    recorder.update_(averages, 0.0, 1.0)
    x_hat = (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()
    rows = {"0.weight": torch.einsum("no,ni->noi", kept["linear"], x), "0.bias": kept["linear"]}
    rows |= {"1.weight": kept["norm"] * x_hat, "1.bias": kept["norm"]}
    for name, parts in rows.items():
        torch.testing.assert_close(parts.sum(0), parameters[name].grad, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(averages[name], parts.square().sum(0), rtol=1e-10, atol=1e-14)


def test_an_unused_layer_counts_as_zero() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(12, K), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    averages = _recorded(Unused().double(), torch.randn(B, 12).double(), torch.randint(K, (B,)), "mean", B)
    assert bool((averages["unused.weight"] == 0.75).all())


def _fails(model: nn.Module, message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        _recorded(model, torch.randn(B, K), torch.randint(K, (B,)), "mean", B)


def test_what_cannot_be_split_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(K, K)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    class Aside(Twice):
        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(x, self.layer.weight)

    tied = nn.Sequential(nn.Linear(K, K), nn.Linear(K, K))
    tied[1].weight = tied[0].weight
    _fails(Twice(), "a Linear ran twice in one forward pass")
    _fails(Aside(), "layer.weight got a gradient although its Linear did not run")
    _fails(tied, "0.weight and 1.weight are one shared tensor")
    _fails(nn.Sequential(nn.GRU(K, K)), "not available for GRU")
