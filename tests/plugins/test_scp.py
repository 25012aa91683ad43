"""SCP against closed forms, an independent loop and the author's algorithm re-derived, in float64."""

from typing import Any

from cl_ext.plugins import SCPPlugin
from cl_ext.plugins.scp import importance_from_jacobian, slice_factor, unit_directions

import pytest
import torch
from avalanche.models import IncrementalClassifier
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
N, D, K = 23, 4, 5
Named = dict[str, Tensor]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.3


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, K)).double()


def _gamma(model: nn.Module, x: Tensor, batch_size: int = 7, y: Tensor | None = None, **options: Any) -> Named:
    dataset = TensorDataset(x, torch.zeros(len(x), dtype=torch.long) if y is None else y)
    return SCPPlugin(**options).new_importance(model, dataset, batch_size)[0]


def _close(a: Named, b: Named, rtol: float = 1e-10) -> bool:
    return all(torch.allclose(a[name], b[name], rtol=rtol, atol=1e-15) for name in b)


def _jacobian(model: nn.Module, x: Tensor) -> Named:
    """name -> (K, *shape), one backward pass an output over all the data at once."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    mean = model(x).mean(0)
    rows = [torch.autograd.grad(m, parameters, retain_graph=True) for m in mean]
    return {name: torch.stack([row[i] for row in rows]) for i, name in enumerate(names)}


def _loop(model: nn.Module, x: Tensor, xi: Tensor) -> Named:
    """The definition: a backward pass for every slice, squared, averaged."""
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for direction in xi:
        mean = (model(x).mean(0) * direction).sum()
        for name, g in zip(total, torch.autograd.grad(mean, list(parameters.values())), strict=True):
            total[name] += g.square() / len(xi)
    return total


def test_linear_closed_form(x: Tensor) -> None:
    """phi = W x + b: Gamma_kj = mean(x_j)^2 / K, and 1/K for the bias."""
    gamma = _gamma(nn.Linear(D, K).double(), x)
    torch.testing.assert_close(gamma["weight"], (x.mean(0).square() / K).expand(K, D), rtol=1e-12, atol=0)
    torch.testing.assert_close(gamma["bias"], torch.full((K,), 1 / K, dtype=torch.float64))


def test_exact_is_the_mean_squared_jacobian(model: nn.Module, x: Tensor) -> None:
    expected = {name: j.square().sum(0) / K for name, j in _jacobian(model, x).items()}
    assert _close(_gamma(model, x), expected)


def test_an_orthonormal_frame_of_slices_is_exact(model: nn.Module, x: Tensor) -> None:
    frame = torch.linalg.qr(torch.randn(K, K, dtype=torch.float64))[0]
    assert _close(_loop(model, x, frame), _gamma(model, x))
    jacobian = _jacobian(model, x)
    ours = importance_from_jacobian(list(jacobian.values()), slice_factor(frame))
    assert _close(dict(zip(jacobian, ours, strict=True)), _gamma(model, x))


@pytest.mark.parametrize("slices", [1, 3, K, K + 1, 100])
def test_cholesky_equals_the_loop_over_the_same_slices(model: nn.Module, x: Tensor, slices: int) -> None:
    """Below K slices the rows themselves, above them the Cholesky factor."""
    sliced = _gamma(model, x, mode="sliced", slices=slices, seed=4)
    assert _close(sliced, _loop(model, x, unit_directions(slices, K, 4 * 1_000_003)))


@pytest.mark.parametrize("seed", range(3))
def test_many_slices_tend_to_exact(model: nn.Module, x: Tensor, seed: int) -> None:
    """(xi . u)^2 is Beta(1/2, (K-1)/2): mean 1/K, relative sd sqrt(2 (K-1) / (K+2)); five of them over sqrt L."""
    slices = 4000
    bound = 5 * (2 * (K - 1) / (K + 2) / slices) ** 0.5
    exact, sliced = _gamma(model, x), _gamma(model, x, mode="sliced", slices=slices, seed=seed)
    ratios = torch.cat([(sliced[name] / exact[name]).flatten() for name in exact])
    assert 0 < float((ratios - 1).abs().max()) < bound


def test_slices_have_their_distribution() -> None:
    slices = 20000
    squares = unit_directions(slices, K, 0).square()
    assert torch.allclose(squares.sum(1), torch.ones(slices, dtype=torch.float64))
    deviation = (2 * (K - 1) / (K**2 * (K + 2)) / slices) ** 0.5
    assert float((squares.mean(0) - 1 / K).abs().max()) < 5 * deviation


def test_one_output_needs_no_slices(x: Tensor) -> None:
    model = nn.Linear(D, 1).double()
    for slices in (1, 2, 50):
        assert _close(_gamma(model, x, mode="sliced", slices=slices), _gamma(model, x))


@pytest.mark.parametrize("mode", ["exact", "sliced"])
def test_batching_order_and_duplication_change_nothing(model: nn.Module, x: Tensor, mode: str) -> None:
    whole = _gamma(model, x, N, mode=mode)
    for batch_size in (1, 7, 22):
        assert _close(_gamma(model, x, batch_size, mode=mode), whole)
    assert _close(_gamma(model, x.flip(0), mode=mode), whole)
    assert _close(_gamma(model, torch.cat([x, x]), mode=mode), whole)


def test_rows_in_several_passes_change_nothing(model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {mode: _gamma(model, x, mode=mode) for mode in ("exact", "minibatch")}
    monkeypatch.setattr("cl_ext.plugins.scp._ROW_FLOATS", 130)  # two of five rows of 65 parameters
    for mode, gamma in whole.items():
        assert _close(_gamma(model, x, mode=mode), gamma)


@pytest.mark.parametrize("mode", ["exact", "sliced", "minibatch"])
def test_labels_are_not_used(model: nn.Module, x: Tensor, mode: str) -> None:
    nonsense = torch.randint(10**6, (N,))
    assert _close(_gamma(model, x, y=nonsense, mode=mode), _gamma(model, x, mode=mode), rtol=0)


def test_rotating_the_outputs_changes_nothing_below_them(model: nn.Module, x: Tensor) -> None:
    rotation = torch.linalg.qr(torch.randn(K, K, dtype=torch.float64))[0]
    turned = nn.Sequential(*model, nn.Linear(K, K, bias=False).double())
    turned[3].weight = nn.Parameter(rotation, requires_grad=False)
    assert _close(_gamma(turned, x), _gamma(model, x), rtol=1e-9)


def test_jensen(model: nn.Module, x: Tensor) -> None:
    """The square of the mean is below the mean of squares: exact <= minibatch <= per sample."""
    x = x[:20]
    exact = _gamma(model, x)
    batch, single = (_gamma(model, x, size, mode="minibatch") for size in (4, 1))
    for name in exact:
        assert bool((exact[name] <= batch[name] * (1 + 1e-12)).all())
        assert bool((batch[name] <= single[name] * (1 + 1e-12)).all())
    assert _close(_gamma(model, x, 20, mode="minibatch"), exact)


def test_the_authors_algorithm(model: nn.Module, x: Tensor) -> None:
    """corel2m at 4c3cb3c (2021-05-25, slice axis mended): L backward passes over all data, divided by N x L."""
    slices = 40
    xi = unit_directions(slices, K, 0)
    parameters = dict(model.named_parameters())
    theirs = {name: torch.zeros_like(p) for name, p in parameters.items()}
    outputs = torch.cat([model(part) for part in x.split(5)])
    for direction in xi:
        model.zero_grad()
        torch.matmul(outputs.mean(0), direction).backward(retain_graph=True)
        for name, p in parameters.items():
            theirs[name] += p.grad.square()
    theirs = {name: value / (N * slices) for name, value in theirs.items()}
    ours = _gamma(model, x, mode="sliced", slices=slices)
    assert _close({name: value * N for name, value in theirs.items()}, ours, rtol=1e-6)


def _wrong_axis(model: nn.Module, x: Tensor) -> Named:
    """The author's code until 2021-05: K columns normalised over L, so E = |J|^2 / L."""
    xi = torch.randn(4000, K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return importance_by_name(model, x, xi / xi.norm(dim=0, keepdim=True))


def _averaged_first(model: nn.Module, x: Tensor) -> Named:
    """HW14: the L slices become one scalar, and that is squared."""
    xi = unit_directions(100, K, 0)
    return importance_by_name(model, x, xi.mean(0, keepdim=True))


def _squared_per_batch(model: nn.Module, x: Tensor) -> Named:
    return _gamma(model, x, 4, mode="minibatch")


def _of_probabilities(model: nn.Module, x: Tensor) -> Named:
    return _gamma(nn.Sequential(*model, nn.Softmax(1)), x)


def importance_by_name(model: nn.Module, x: Tensor, xi: Tensor) -> Named:
    jacobian = _jacobian(model, x)
    return dict(zip(jacobian, importance_from_jacobian(list(jacobian.values()), slice_factor(xi)), strict=True))


@pytest.mark.parametrize("faulty", [_wrong_axis, _averaged_first, _squared_per_batch, _of_probabilities])
def test_negative_control(faulty: Any, model: nn.Module, x: Tensor) -> None:
    """Each known fault is far outside what the oracle of the exact form lets pass."""
    expected = {name: j.square().sum(0) / K for name, j in _jacobian(model, x).items()}
    wrong = faulty(model, x)
    assert not _close(wrong, expected, rtol=0.05)


def test_negative_control_train_mode(x: Tensor) -> None:
    """Dropout and batch statistics must be off, and on again afterwards."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, K)).double()
    for _ in range(20):
        model(3 * x + 1)
    model[1].eval()
    statistics = model[1].running_mean.clone()
    state, flags = torch.get_rng_state(), [module.training for module in model.modules()]
    gamma = _gamma(model, x)
    assert flags == [module.training for module in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(statistics, model[1].running_mean)
    model.eval()
    in_eval_mode = {name: j.square().sum(0) / K for name, j in _jacobian(model, x).items()}
    model.train()
    in_train_mode = {name: j.square().sum(0) / K for name, j in _jacobian(model, x).items()}
    assert _close(gamma, in_eval_mode)
    assert not _close(in_train_mode, in_eval_mode, rtol=0.05)


@pytest.mark.parametrize("mode", ["exact", "sliced", "minibatch"])
def test_only_active_units_count(x: Tensor, mode: str) -> None:
    """A unit masked to -1000 is no output: Gamma is that of a network that has the active units only."""
    torch.manual_seed(0)
    head = IncrementalClassifier(D, K).double()
    head.active_units[[0, 3]] = 1
    small = nn.Linear(D, 2).double()
    with torch.no_grad():
        small.weight.copy_(head.classifier.weight[[0, 3]])
        small.bias.copy_(head.classifier.bias[[0, 3]])
    gamma, expected = _gamma(head, x, mode=mode), _gamma(small, x, mode=mode)
    torch.testing.assert_close(gamma["classifier.weight"][[0, 3]], expected["weight"])
    assert float(gamma["classifier.weight"][[1, 2, 4]].abs().max()) == 0.0


@pytest.mark.parametrize(("init", "weights"), [("zero", (0.75, 0.9375)), ("first", (1.0, 1.0))])
def test_moving_average_over_experiences(init: Any, weights: tuple[float, float]) -> None:
    """alpha = 1/4: from zero 3/4 and then 1/4 x 3/4 + 3/4; from the first 1 and 1, of a Gamma_new that stays."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(common.FEATURES, common.CLASSES))
    plugin = SCPPlugin(init=init)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    runner = common.strategy(model, [plugin], optimizer=optimizer, train_epochs=1)
    stream = common.benchmark().train_stream
    for experience, weight in zip([stream[0], stream[0]], weights, strict=True):
        runner.train(experience)
        mean = torch.stack([sample[0] for sample in experience.dataset]).mean(0)
        expected = weight * (mean.square() / common.CLASSES).expand(common.CLASSES, common.FEATURES)
        torch.testing.assert_close(plugin.importances["1.weight"], expected, rtol=1e-4, atol=1e-7)


def test_what_it_cannot_use(x: Tensor) -> None:
    with pytest.raises(TypeError, match=r"Sequential must give logits of shape \(B, K\) with B = 7"):
        _gamma(nn.Sequential(nn.Linear(D, 4), nn.Unflatten(1, (2, 2))).double(), x)
    with pytest.raises(ValueError, match="needs at least one sample, but the experience's dataset is empty"):
        _gamma(nn.Linear(D, K).double(), x[:0])
    with pytest.raises(ValueError, match="Flatten has no trainable parameters"):
        _gamma(nn.Flatten(), x)
