"""Diagonal Fisher matrices against closed forms, their definition, the GGN and BackPACK, in float64."""

from collections.abc import Callable
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.nn import fisher
from cl_ext.nn.fisher import FisherKind, diagonal_fisher, exact_seeds, random_subset, sampled_labels, trained_softmax

import pytest
import torch
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.models import IncrementalClassifier
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from tests.nn.test_per_sample import _make
from tests.nn.test_sample_pass import Recurrent, Tied

DOUBLE = torch.float64
N, D, K = 24, 4, 5
KINDS: tuple[FisherKind, ...] = ("exact", "sampled", "empirical", "predicted", "batch")
Named = dict[str, Tensor]


@pytest.fixture
def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, D, generator=generator, dtype=DOUBLE) + 0.3
    return TensorDataset(x, torch.randint(K, (N,), generator=generator))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, K)).double()


def _fisher(model: nn.Module, data: Any, kind: FisherKind = "exact", **options: Any) -> Named:
    if kind == "batch":
        options = {"batch_size": 5} | options
    return diagonal_fisher(model, dict(model.named_parameters()), data, kind, **options)


def _close(a: Named, b: Named, rtol: float = 1e-11) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], rtol=rtol, atol=1e-16) for name in b)


Weights = Callable[[Tensor, Tensor], Tensor]
"""From the log probabilities (K,) of a sample and its label to the weight of each label's square, (K,)."""


def _definition(model: nn.Module, data: TensorDataset, weights: Weights, divide: int | None = None) -> Named:
    """`(1/N) sum_n sum_c weight_c (d log p_c / d theta)^2`, a backward pass for each."""
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for x, y in data:
        log_p = model(x.unsqueeze(0))[0].log_softmax(0)
        for c, weight in enumerate(weights(log_p.detach(), y)):
            gradients = torch.autograd.grad(log_p[c], list(parameters.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(total, gradients, strict=True):
                if gradient is not None:
                    total[name] += weight * gradient.square()
    return {name: value / (divide or len(data)) for name, value in total.items()}


def _one(c: Tensor) -> Tensor:
    return functional.one_hot(c, K).to(DOUBLE)


OVER_LABELS: dict[FisherKind, Weights] = {
    "exact": lambda log_p, _: log_p.exp(),
    "empirical": lambda _, y: _one(y),
    "predicted": lambda log_p, _: _one(log_p.argmax()),
}


# ---- closed forms and independent derivations ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", OVER_LABELS)
def test_linear_softmax_closed_forms(kind: FisherKind, data: TensorDataset) -> None:
    """phi = W x + b: E[p (1 - p) x^2] over the model's labels, E[(p - e_y)^2 x^2] for one label."""
    torch.manual_seed(0)
    layer = nn.Linear(D, K).double()
    x, y = data.tensors
    p = layer(x).softmax(1).detach()
    label = {"empirical": y, "predicted": p.argmax(1)}.get(kind)
    squares = p * (1 - p) if label is None else (p - _one(label)).square()
    found = _fisher(layer, data, kind)
    torch.testing.assert_close(found["weight"], squares.T @ x.square() / N, rtol=1e-13, atol=1e-16)
    torch.testing.assert_close(found["bias"], squares.mean(0), rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("kind", OVER_LABELS)
def test_the_definition(kind: FisherKind, model: nn.Module, data: TensorDataset) -> None:
    assert _close(_fisher(model, data, kind), _definition(model, data, OVER_LABELS[kind]))


@pytest.mark.parametrize("network", ["conv", "tokens", "batch norm, eval", "tied", "recurrent"])
def test_the_definition_on_other_networks(network: str) -> None:
    """Those that split by layer, by vmap only, and not at all."""
    if network in ("tied", "recurrent"):
        torch.manual_seed(0)
        model = {"tied": Tied, "recurrent": Recurrent}[network]().double()
        x, y = torch.randn(7, 12, dtype=DOUBLE), torch.randint(K, (7,))
    else:
        model, x, y = _make(network)
    data = TensorDataset(x, y)
    assert _close(_fisher(model, data), _definition(model, data, OVER_LABELS["exact"]), rtol=1e-9)


def test_exact_is_the_diagonal_of_the_ggn(model: nn.Module, data: TensorDataset) -> None:
    x, _ = data.tensors
    p = model(x).softmax(1).detach()
    hessian = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    parameters = dict(model.named_parameters())
    jacobian = torch.func.jacrev(lambda theta: torch.func.functional_call(model, theta, (x,)))(parameters)
    ggn = {name: torch.einsum("nk...,nkl,nl...->...", j, hessian, j) / N for name, j in jacobian.items()}
    assert _close(_fisher(model, data), ggn)


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_backpack(network: str) -> None:
    """DiagGGNExact is exact, SumGradSquared / N empirical."""
    backpack = pytest.importorskip("backpack")
    torch.manual_seed(0)
    layers = {
        "mlp": [nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, K)],
        "conv": [nn.Unflatten(1, (2, 6, 6)), nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(36, K)],
    }[network]
    model = nn.Sequential(*layers).double()
    x, y = torch.randn(N, 12 if network == "mlp" else 72, dtype=DOUBLE), torch.randint(K, (N,))
    found = {kind: _fisher(model, TensorDataset(x, y), kind) for kind in ("exact", "empirical")}
    loss = backpack.extend(nn.CrossEntropyLoss(reduction="sum"))
    backpack.extend(model)
    with backpack.backpack(backpack.extensions.DiagGGNExact(), backpack.extensions.SumGradSquared()):
        loss(model(x), y).backward()
    named = dict(model.named_parameters())
    assert _close(found["exact"], {name: p.diag_ggn_exact / N for name, p in named.items()})
    assert _close(found["empirical"], {name: p.sum_grad_squared / N for name, p in named.items()})


def test_predicted_is_empirical_at_the_predicted_labels(model: nn.Module, data: TensorDataset) -> None:
    x, _ = data.tensors
    relabelled = TensorDataset(x, model(x).argmax(1))
    assert _close(_fisher(model, data, "predicted"), _fisher(model, relabelled, "empirical"), rtol=0)


# ---- sampled labels -------------------------------------------------------------------------------------------------


def test_labels_are_drawn_from_the_softmax() -> None:
    p = torch.tensor([0.1, 0.0, 0.55, 0.35, 0.0], dtype=DOUBLE)
    draws = 20000
    labels = sampled_labels(p.expand(draws, K), torch.Generator().manual_seed(0))
    frequency = labels.bincount(minlength=K) / draws
    deviation = (p * (1 - p) / draws).sqrt()
    assert bool(((frequency - p).abs() <= 4 * deviation).all())  # exactly 0 where p is


@pytest.mark.parametrize(("u", "label"), [(0.0, 1), (1.0, 3)])
def test_the_ends_of_the_distribution_function(u: float, label: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label without probability is drawn at neither end, whatever rounding does."""
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, u, dtype=DOUBLE))
    p = torch.tensor([[0.0, 0.4, 0.0, 0.6, 0.0]])
    assert sampled_labels(p, torch.Generator()).tolist() == [label]


def test_sampled_tends_to_exact(data: TensorDataset) -> None:
    """The mean over R draws is within 5 standard deviations, known in closed form for a linear softmax."""
    torch.manual_seed(0)
    layer, (x, y), draws = nn.Linear(D, K).double(), data.tensors, 40
    repeated = TensorDataset(x.repeat(draws, 1), y.repeat(draws))  # which draws for each copy
    mean = _fisher(layer, repeated, "sampled", batch_size=N * draws)["bias"]
    p = layer(x).softmax(1).detach()
    # (p_k - e_c)^2 is (1 - p_k)^2 with probability p_k and p_k^2 otherwise
    variance = p * (1 - p) * ((1 - p).square() - p.square()).square()
    deviation = (variance.sum(0) / draws).sqrt() / N
    error = (mean - (p * (1 - p)).mean(0)).abs()
    assert bool((error < 5 * deviation).all())
    assert float(error.max()) > 0


def test_sampled_comes_from_its_own_generator(model: nn.Module, data: TensorDataset) -> None:
    def draw(seed: int, **options: Any) -> Named:
        return _fisher(model, data, "sampled", generator=torch.Generator().manual_seed(seed), **options)

    state = torch.get_rng_state()
    assert _close(draw(3), draw(3), rtol=0)
    assert not _close(draw(3), draw(4), rtol=0.01)
    for batch_size in (1, 5, N):
        assert _close(draw(3, batch_size=batch_size), draw(3))
    assert torch.equal(state, torch.get_rng_state())


# ---- the squared batch gradient ---------------------------------------------------------------------------------


def test_batch_form(model: nn.Module, data: TensorDataset) -> None:
    """Batches of one: empirical. One batch: the square of the mean gradient."""
    assert _close(_fisher(model, data, "batch", batch_size=1), _fisher(model, data, "empirical"))
    x, y = data.tensors
    gradients = torch.autograd.grad(functional.cross_entropy(model(x), y), list(model.parameters()))
    squares = {name: g.square() for (name, _), g in zip(model.named_parameters(), gradients, strict=True)}
    assert _close(_fisher(model, data, "batch", batch_size=N), squares)


def _calibrated(samples: int) -> tuple[nn.Module, TensorDataset]:
    """A linear softmax whose own labels the data have: the mean gradient is 0 but for chance."""
    generator = torch.Generator().manual_seed(2)
    torch.manual_seed(0)
    layer, x = nn.Linear(D, K).double(), torch.randn(samples, D, generator=generator, dtype=DOUBLE)
    return layer, TensorDataset(x, sampled_labels(layer(x).softmax(1).detach(), generator))


def test_negative_control_the_batch_form_is_about_one_over_b_of_a_fisher() -> None:
    layer, data = _calibrated(1200)
    exact, batch = _fisher(layer, data), _fisher(layer, data, "batch", batch_size=40)
    ratio = sum(float(b.sum()) for b in batch.values()) / sum(float(e.sum()) for e in exact.values())
    assert 0.8 / 40 < ratio < 1.2 / 40
    assert not _close(batch, exact, rtol=0.5)
    assert _close(_fisher(layer, data, "empirical"), exact, rtol=0.3)  # which is a Fisher here


# ---- outputs that the loss reads -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_over_some_classes(kind: FisherKind, model: nn.Module, data: TensorDataset) -> None:
    """F is that of a network with these outputs only; the others have none."""
    x, _ = data.tensors
    y = torch.randint(2, (N,), generator=torch.Generator().manual_seed(3))
    loss = ScenarioCrossEntropy([[1, 3], [0, 2, 4]])
    small = nn.Sequential(model[0], model[1], nn.Linear(6, 2).double())
    with torch.no_grad():
        small[2].weight.copy_(model[2].weight[[1, 3]])
        small[2].bias.copy_(model[2].bias[[1, 3]])
    found = _fisher(model, TensorDataset(x, 2 * y + 1), kind, loss=loss)
    expected = _fisher(small, TensorDataset(x, y), kind)
    for name, value in expected.items():
        ours = found[name] if name[0] == "0" else found[name][[1, 3]]
        torch.testing.assert_close(ours, value, rtol=1e-11, atol=1e-16)
    assert float(found["2.weight"][[0, 2, 4]].abs().max()) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_over_one_class_has_no_fisher(kind: FisherKind, model: nn.Module, data: TensorDataset) -> None:
    x, _ = data.tensors
    one = TensorDataset(x, torch.full((N,), 2))
    loss = ScenarioCrossEntropy([[2], [0, 1, 3, 4]])
    assert all(float(f.abs().max()) == 0.0 for f in _fisher(model, one, kind, loss=loss).values())


@pytest.mark.parametrize("kind", ["exact", "empirical"])
def test_units_masked_to_minus_1000(kind: FisherKind, data: TensorDataset) -> None:
    x, _ = data.tensors
    torch.manual_seed(0)
    head, small = IncrementalClassifier(D, K).double(), nn.Linear(D, 2).double()
    head.active_units[[0, 3]] = 1
    with torch.no_grad():
        small.weight.copy_(head.classifier.weight[[0, 3]])
        small.bias.copy_(head.classifier.bias[[0, 3]])
    y = torch.randint(2, (N,))
    found = _fisher(head, TensorDataset(x, 3 * y), kind)
    expected = _fisher(small, TensorDataset(x, y), kind)
    torch.testing.assert_close(found["classifier.weight"][[0, 3]], expected["weight"])
    assert float(found["classifier.weight"][[1, 2, 4]].abs().max()) == 0.0


def test_seeds_of_labels_without_probability_are_left_out() -> None:
    phi, y = torch.randn(6, K, dtype=DOUBLE), torch.tensor([1, 3, 1, 3, 3, 1])
    p = trained_softmax(ScenarioCrossEntropy([[1, 3], [0, 2, 4]]), phi, y)
    torch.testing.assert_close(p.sum(1), torch.ones(6, dtype=DOUBLE))
    assert exact_seeds(p).shape == (2, 6, K)
    assert exact_seeds(phi.softmax(1)).shape == (K, 6, K)


# ---- invariances --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OVER_LABELS)
def test_batching_order_and_duplication_change_nothing(
    kind: FisherKind, model: nn.Module, data: TensorDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = data.tensors
    whole = _fisher(model, data, kind)
    for batch_size in (1, 7, N, 100):
        assert _close(_fisher(model, data, kind, batch_size=batch_size), whole)
    assert _close(_fisher(model, TensorDataset(x.flip(0), y.flip(0)), kind), whole)
    assert _close(_fisher(model, TensorDataset(torch.cat([x, x]), torch.cat([y, y])), kind), whole)
    monkeypatch.setattr(fisher, "_SEED_ROWS", 3 * K)
    assert _close(_fisher(model, data, kind), whole)


def test_many_classes_take_small_batches(
    model: nn.Module, data: TensorDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K seeds a sample are held at once; a batch size that was given is kept."""
    sizes: list[int] = []
    plain = fisher.dataset_sums

    def spy(*arguments: Any) -> Any:
        sizes.append(arguments[5])
        return plain(*arguments)

    monkeypatch.setattr(fisher, "dataset_sums", spy)
    monkeypatch.setattr(fisher, "_SEED_ROWS", 3 * K)
    _fisher(model, data)
    _fisher(model, data, batch_size=20)
    _fisher(model, data, "empirical")
    assert sizes == [3, 20, 128]


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_hidden_units_permutes_the_fisher(kind: FisherKind, model: nn.Module, data: TensorDataset) -> None:
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    other = nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, K)).double()
    other.load_state_dict(_permuted(model.state_dict(), order))
    assert _close(_fisher(other, data, kind), _permuted(_fisher(model, data, kind), order), rtol=1e-10)


def _permuted(named: Named, order: Tensor) -> Named:
    first = {name: named[name][order] for name in ("0.weight", "0.bias")}
    return first | {"2.weight": named["2.weight"][:, order], "2.bias": named["2.bias"]}


def test_permuting_outputs_is_an_invariance_of_the_trunk_and_rotating_them_is_not(
    model: nn.Module, data: TensorDataset
) -> None:
    """Unlike those of MAS and SCP, whose importances any rotation leaves alone."""
    trunk = {name: value for name, value in _fisher(model, data).items() if name[0] == "0"}
    turned = nn.Sequential(*model, nn.Linear(K, K, bias=False).double())
    permutation = torch.eye(K, dtype=DOUBLE)[[2, 0, 4, 1, 3]]
    rotation = torch.linalg.qr(torch.randn(K, K, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)))[0]
    for matrix, same in ((permutation, True), (rotation, False)):
        turned[3].weight = nn.Parameter(matrix)
        found = {name: value for name, value in _fisher(turned, data).items() if name[0] == "0"}
        assert _close(found, trunk, rtol=1e-10 if same else 0.01) == same


# ---- a cap on the samples ------------------------------------------------------------------------------------------


def test_a_random_subset(model: nn.Module, data: TensorDataset) -> None:
    def chosen(seed: int, n: int | None) -> list[list[float]]:
        subset = random_subset(data, n, torch.Generator().manual_seed(seed))
        return [subset[i][0].tolist() for i in range(len(subset))]

    rows = [x.tolist() for x, _ in data]
    nine = chosen(0, 9)
    positions = [rows.index(row) for row in nine]
    assert positions == sorted(set(positions))
    assert len(positions) == 9
    assert positions != list(range(9))
    assert chosen(0, 9) == nine != chosen(1, 9)
    assert chosen(0, None) == chosen(0, N) == chosen(0, N + 1) == rows
    x, y = data.tensors
    part = TensorDataset(x[positions], y[positions])
    found = _fisher(model, data, n_samples=9, generator=torch.Generator().manual_seed(0))
    assert _close(found, _fisher(model, part), rtol=0)


def test_negative_control_the_first_samples_of_sorted_data_are_of_one_class() -> None:
    layer, data = _calibrated(500)
    x, y = data.tensors
    order = y.argsort()
    data = TensorDataset(x[order], y[order])
    whole = _fisher(layer, data, "empirical")["bias"]
    drawn = _fisher(layer, data, "empirical", n_samples=80)["bias"]
    first = _fisher(layer, TensorDataset(x[order][:80], y[order][:80]), "empirical")["bias"]
    assert torch.allclose(drawn, whole, rtol=0.5)
    assert not torch.allclose(first, whole, rtol=0.5)


def test_a_subset_of_an_avalanche_data_set_keeps_its_task_labels(data: TensorDataset) -> None:
    data.targets = data.tensors[1].tolist()
    subset = random_subset(as_classification_dataset(data), 3, torch.Generator().manual_seed(0))
    assert len(subset) == 3
    assert hasattr(subset, "collate_fn")


# ---- no trace ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_in_eval_mode_without_a_trace(kind: FisherKind, data: TensorDataset) -> None:
    """Dropout and batch statistics are off, and on again afterwards; gradients and random numbers are untouched."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, K)).double()
    for _ in range(20):
        model(3 * data.tensors[0] + 1)
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, flags = torch.get_rng_state(), [module.training for module in model.modules()]
    found = _fisher(model, data, kind)
    assert flags == [module.training for module in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    model.eval()
    assert _close(_fisher(model, data, kind), found, rtol=0)
    if kind in OVER_LABELS:
        assert _close(found, _definition(model, data, OVER_LABELS[kind]), rtol=1e-9)
        model[2].train()
        assert not _close(_definition(model, data, OVER_LABELS[kind]), found, rtol=0.05)


def test_what_it_cannot_use(model: nn.Module, data: TensorDataset) -> None:
    with pytest.raises(ValueError, match="needs a batch size"):
        _fisher(model, data, "batch", batch_size=None)
    for kind in KINDS:
        with pytest.raises(ValueError, match="at least one sample"):
            _fisher(model, TensorDataset(*(tensor[:0] for tensor in data.tensors)), kind)
        with pytest.raises(TypeError, match=r"must give logits of shape \(B, K\)"):
            _fisher(nn.Sequential(nn.Linear(D, 4), nn.Unflatten(1, (2, 2))).double(), data, kind)


# ---- faults of public codes: each is far outside what the oracle of the exact form lets pass ------------------------


def _divided_by_the_last_index(model: nn.Module, data: TensorDataset) -> Named:
    """van de Ven's code: `for index, ...: ...` and then `/ index`."""
    return _definition(model, data, OVER_LABELS["exact"], divide=N - 1)


def _softmax_over_the_flattened_batch(model: nn.Module, data: TensorDataset) -> Named:
    """corel2m: logits `view(1, -1)`, one label drawn among batch x classes, its squared gradient."""
    x, _ = data.tensors
    log_p = model(x).view(1, -1).log_softmax(1)
    label = torch.multinomial(log_p.detach().exp(), 1, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad(log_p[0, label.item()], list(model.parameters()))
    return {name: g.square() for (name, _), g in zip(model.named_parameters(), gradients, strict=True)}


def _predicted_label(model: nn.Module, data: TensorDataset) -> Named:
    """van de Ven's preprints branch, FACIL."""
    return _definition(model, data, OVER_LABELS["predicted"])


def _squared_batch_gradient(model: nn.Module, data: TensorDataset) -> Named:
    """Avalanche, agem, GT-RIPL, the GEM repository, homework 14."""
    return _fisher(model, data, "batch", batch_size=8)


def _one_gradient(model: nn.Module, data: TensorDataset) -> Named:
    """The GEM repository: the square of one gradient over the memory."""
    return _fisher(model, data, "batch", batch_size=N)


def _weighted_by_the_likelihood(model: nn.Module, data: TensorDataset) -> Named:
    """mammoth: each sample's squared gradient times p(y | x)."""
    return _definition(model, data, lambda log_p, y: _one(y) * log_p.exp())


def _every_label_alike(model: nn.Module, data: TensorDataset) -> Named:
    """The expectation's weights forgotten."""
    return _definition(model, data, lambda log_p, _: torch.ones_like(log_p))


def _summed(model: nn.Module, data: TensorDataset) -> Named:
    """GT-RIPL: not divided by the samples."""
    return _definition(model, data, OVER_LABELS["exact"], divide=1)


@pytest.mark.parametrize(
    "faulty",
    [
        _divided_by_the_last_index,
        _softmax_over_the_flattened_batch,
        _predicted_label,
        _squared_batch_gradient,
        _one_gradient,
        _weighted_by_the_likelihood,
        _every_label_alike,
        _summed,
    ],
)
def test_negative_control(faulty: Any, model: nn.Module, data: TensorDataset) -> None:
    assert not _close(faulty(model, data), _definition(model, data, OVER_LABELS["exact"]), rtol=0.04)


def test_van_de_vens_divisor_is_the_ratio(model: nn.Module, data: TensorDataset) -> None:
    """His Fisher is N / (N - 1) of ours, and nothing else differs."""
    theirs = _divided_by_the_last_index(model, data)
    assert _close(theirs, {name: value * N / (N - 1) for name, value in _fisher(model, data).items()})
