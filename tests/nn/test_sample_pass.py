"""Sums of per-sample gradients over a data set: by layers, by vmap and by a loop they are the same."""

from typing import Any

from cl_ext.nn import sample_pass
from cl_ext.nn.per_sample import sums_by_loop
from cl_ext.nn.sample_pass import UnsplittableError, batch_sums, dataset_sums, trained_outputs, way

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from tests.nn.test_per_sample import NETWORKS, B, K, _make

DOUBLE = torch.float64


def label_seed(phi: Tensor, y: Tensor) -> Tensor:
    """The gradient of each sample's cross-entropy by its logits: one seed."""
    return (phi.softmax(1) - functional.one_hot(y, K)).unsqueeze(0)


def every_output(phi: Tensor, y: Tensor) -> Tensor:
    """A seed an output."""
    return torch.eye(K, dtype=phi.dtype).unsqueeze(1).expand(K, len(phi), K)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("f", [torch.square, torch.abs], ids=["square", "abs"])
def test_a_pass_equals_the_loop(name: str, f: Any) -> None:
    model, x, y = _make(name)
    expected = sums_by_loop(model.eval(), functional.cross_entropy, x, y, f)
    found, samples = dataset_sums(model, dict(model.named_parameters()), TensorDataset(x, y), label_seed, f, 3)
    assert samples == B
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["mlp", "conv", "tokens"])
def test_several_seeds_add_up(name: str) -> None:
    model, x, y = _make(name)
    found, _ = dataset_sums(model, dict(model.named_parameters()), TensorDataset(x, y), every_output, torch.square)
    expected = {key: torch.zeros_like(p) for key, p in model.named_parameters()}
    for k in range(K):
        for key, value in sums_by_loop(model, lambda phi, _, k=k: phi[:, k].sum(), x, y).items():
            expected[key] += value
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-11, atol=1e-13)


class Twice(nn.Module):
    """One layer run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(12, 12), nn.Linear(12, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, K)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Recurrent(nn.Module):
    """A GRU over the features."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(1, 3, batch_first=True), nn.Linear(3, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x.unsqueeze(-1))[0][:, -1])


@pytest.mark.parametrize("network", [Twice, Tied, Recurrent])
def test_what_does_not_split_by_layer_is_exact_too(network: Any) -> None:
    torch.manual_seed(0)
    model, x, y = network().double(), torch.randn(B, 12, dtype=DOUBLE), torch.randint(K, (B,))
    found, _ = dataset_sums(model, dict(model.named_parameters()), TensorDataset(x, y), label_seed, torch.square)
    for key, value in sums_by_loop(model, functional.cross_entropy, x, y).items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-13)


def test_a_weight_used_outside_its_layer_is_noticed() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = nn.Linear(12, 12), nn.Linear(12, K)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(self.inner(x)) @ self.inner.weight)

    x = torch.randn(B, 12)
    plain = nn.Sequential(nn.Linear(12, 8), nn.ReLU(inplace=True), nn.Linear(8, K))
    model, y = Aside().double(), torch.randint(K, (B,))
    assert way(plain, dict(plain.named_parameters()), x, None) == "layers"
    assert way(model, dict(model.named_parameters()), x.double(), None) == "vmap"
    data = TensorDataset(x.double(), y)
    found, _ = dataset_sums(model, dict(model.named_parameters()), data, label_seed, torch.square)
    for key, value in sums_by_loop(model, functional.cross_entropy, x.double(), y).items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-13)


def test_a_layer_registered_twice_is_left_whole() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 12).double()
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(12, K).double())
    before = dict(model.named_parameters())
    x, y = torch.randn(B, 12, dtype=DOUBLE), torch.randint(K, (B,))
    found, _ = dataset_sums(model, before, TensorDataset(x, y), label_seed, torch.square)
    assert all(p is before[name] for name, p in model.named_parameters())
    assert model[0].weight is model[2].weight is layer.weight
    for key, value in sums_by_loop(model, functional.cross_entropy, x, y).items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-13)


def test_a_limit_takes_the_first_samples() -> None:
    model, x, y = _make("mlp")
    parameters = dict(model.named_parameters())
    found, samples = dataset_sums(model, parameters, TensorDataset(x, y), label_seed, torch.square, 3, limit=4)
    assert samples == 4
    first = batch_sums(model, parameters, x[:4], None, y[:4], label_seed, torch.square)
    for key, value in first.items():
        torch.testing.assert_close(found[key], value)


def test_no_sample_is_an_error() -> None:
    model, x, y = _make("mlp")
    with pytest.raises(ValueError, match="at least one sample"):
        dataset_sums(model, dict(model.named_parameters()), TensorDataset(x[:0], y[:0]), label_seed, torch.square)


def test_the_outputs_a_loss_reads() -> None:
    phi, y = torch.randn(3, K) * 1e4, torch.tensor([0, 1, 0])
    assert bool(trained_outputs(functional.cross_entropy, phi, y).all())
    masked = torch.tensor([0.0, 0.0, -torch.inf, -torch.inf, -torch.inf])
    read = trained_outputs(lambda z, t: functional.cross_entropy(z + masked, t), phi, y)
    assert read.tolist() == [[True, True, False, False, False]] * 3


def test_the_tape_refuses_what_it_cannot_split() -> None:
    with pytest.raises(UnsplittableError, match=r"two\.weight is shared"):
        sample_pass.LayerTape(Tied(), dict(Tied().named_parameters()))
