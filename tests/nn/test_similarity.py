"""Similarities of tasks against closed forms, and on tasks whose similarity is known."""

import math

from cl_ext.nn.fisher import diagonal_fisher
from cl_ext.nn.similarity import (
    correlation_matrix,
    cosine,
    covariance,
    feature_similarity,
    fisher_vector,
    product_similarity,
    readout_similarity,
)
from cl_ext.nn.task_probe import TaskProbe, TaskSample, readout_of

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset


def seeds(task: int) -> int:
    return 10 + task


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- cosine ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([3.0, 4.0], [4.0, 3.0], 24 / 25),
        ([1.0, 0.0], [0.0, 2.0], 0.0),
        ([1.0, 2.0], [-1.0, -2.0], 0.0),  # clipped
        ([1.0, 2.0], [10.0, 20.0], 1.0),
        ([0.0, 0.0], [1.0, 2.0], 0.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
    ],
)
def test_cosine(a: list[float], b: list[float], expected: float) -> None:
    assert cosine(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, abs=1e-12)
    assert cosine(torch.tensor(b).view(2, 1), torch.tensor(a).view(2, 1)) == pytest.approx(expected, abs=1e-12)


def test_a_cosine_never_leaves_the_range_by_rounding_and_refuses_other_shapes() -> None:
    for seed in range(50):
        a = normal(7, seed=seed).float()
        assert cosine(a, a * (seed + 1)) <= 1.0
        assert cosine(a, a * (seed + 1)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="one shape"):
        cosine(torch.ones(4), torch.ones(2, 2))


# ---- features --------------------------------------------------------------------------------------------------------
def test_covariance_by_hand() -> None:
    z = torch.tensor([[0.0, 2.0], [2.0, 2.0], [4.0, 5.0]])
    assert torch.allclose(covariance(z), torch.tensor([[8 / 3, 2.0], [2.0, 2.0]]))
    assert torch.equal(covariance(z[:1]), torch.zeros(2, 2))


def test_feature_similarity_in_closed_form() -> None:
    """Features on orthogonal axes have 0; those on axes at an angle a have cos(a)^2; scale and shift are nothing."""
    line = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64).unsqueeze(1)
    first = line * torch.tensor([1.0, 0.0])
    for angle in (0.0, 0.3, math.pi / 3, math.pi / 2):
        other = 5.0 + 3.0 * line * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        assert feature_similarity(first, other) == pytest.approx(math.cos(angle) ** 2, abs=1e-12)


def test_feature_similarity_is_linear_cka_with_features_in_the_place_of_samples() -> None:
    """Kornblith et al.'s |Y^T X|^2 / (|X^T X| |Y^T Y|) with X = z_t^T and Y = z_u^T, both centred."""
    z_t, z_u = normal(9, 4, seed=1), normal(13, 4, seed=2)
    X, Y = ((z - z.mean(0)).T for z in (z_t, z_u))
    cka = (Y.T @ X).square().sum() / ((X.T @ X).norm() * (Y.T @ Y).norm())
    assert feature_similarity(z_t, z_u) == pytest.approx(float(cka), abs=1e-12)


def test_feature_similarity_invariances() -> None:
    z_t, z_u = normal(9, 4, seed=1), normal(13, 4, seed=2)
    s = feature_similarity(z_t, z_u)
    rotation = torch.linalg.qr(normal(4, 4, seed=3)).Q
    assert feature_similarity(z_u, z_t) == pytest.approx(s)
    assert feature_similarity(z_t[torch.randperm(9)], z_u) == pytest.approx(s)
    assert feature_similarity(z_t @ rotation, z_u @ rotation) == pytest.approx(s)
    assert feature_similarity(z_t @ rotation, z_u) != pytest.approx(s, abs=1e-3)
    assert 0.0 < s < 1.0


# ---- readout ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ce", "classes", "expected"),
    [(0.0, 10, 1.0), (math.log(10), 10, 0.0), (math.log(10) / 4, 10, 0.75), (9.0, 10, 0.0), (math.inf, 3, 0.0),
     (math.nan, 3, 0.0), (math.log(2) / 2, 1, 0.5), (math.log(2) / 2, 0, 0.5)],
)  # fmt: skip
def test_readout(ce: float, classes: int, expected: float) -> None:
    assert readout_similarity(ce, classes) == pytest.approx(expected, abs=1e-12)


class Fixed(nn.Module):
    """Logits that are given."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z = nn.Parameter(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.z.clone()


def test_readout_of_a_network_is_by_its_softmax_over_what_the_loss_reads() -> None:
    z, y = normal(6, 4, seed=4).float(), torch.tensor([0, 1, 0, 1, 1, 0])
    sample = TaskSample(0, torch.zeros(6, 2), y, None)
    ce = float(cross_entropy(z, y))
    assert readout_of(Fixed(z), sample, cross_entropy, 3) == pytest.approx(max(0.0, 1 - ce / math.log(3)), abs=1e-6)
    two = z[:, :2] * torch.tensor([[5.0, -5.0]])  # classes 0 and 1 are one task's; a guess is among those two
    good = torch.cat([torch.where(y.unsqueeze(1).eq(torch.arange(2)), two.abs(), -two.abs()), z[:, 2:] + 50], 1)
    task_loss = lambda phi, y: cross_entropy(phi[:, :2], y)  # noqa: E731
    expected = 1 - float(cross_entropy(good[:, :2], y)) / math.log(2)
    assert expected > 0.3
    assert readout_of(Fixed(good), sample, task_loss, 4) == pytest.approx(expected, abs=1e-6)
    assert readout_of(Fixed(good), sample, cross_entropy, 4) == 0.0  # the other outputs drown them


def test_product() -> None:
    assert product_similarity(0.5, 0.25) == 0.125
    assert product_similarity(1.0, 0.0) == 0.0


# ---- Fisher and correlation ------------------------------------------------------------------------------------------
def test_fishers_of_a_linear_softmax_on_disjoint_inputs_have_cosine_0() -> None:
    """F of W_kd is E[p_k (1 - p_k)] x_d^2: inputs with no common active dimension share no entry of it but biases'."""
    model = nn.Linear(4, 3, bias=False)
    labels = torch.zeros(5, dtype=torch.long)
    vectors = []
    for active in ([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0]):
        x = torch.tensor([active]).repeat(5, 1)
        fisher = diagonal_fisher(model, dict(model.named_parameters()), TensorDataset(x, labels))
        with torch.no_grad():
            p = model(x[:1]).softmax(1)[0]
        expected = (p * (1 - p)).unsqueeze(1) * x[:1].square()
        assert torch.allclose(fisher_vector(fisher), expected.flatten(), atol=1e-6)
        vectors.append(fisher_vector(fisher))
    assert cosine(vectors[0], vectors[1]) == 0.0
    assert 0.2 < cosine(vectors[0], vectors[2]) < 0.8


def test_correlation_of_identical_views_and_of_one_sample() -> None:
    z = normal(50, 3, seed=5)
    C = correlation_matrix(z, z)
    assert torch.allclose(C.diagonal(), torch.ones(3).double())
    assert torch.allclose(C, torch.corrcoef(z.T), atol=1e-10)
    assert torch.equal(correlation_matrix(z[:1], z[:1]), torch.zeros(3, 3).double())
    assert cosine(C, correlation_matrix(-z, z)) == 0.0  # a sign flip of a view flips C


# ---- the probe -------------------------------------------------------------------------------------------------------
def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def dataset(count: int = 40, seed: int = 0) -> TensorDataset:
    y = torch.arange(count) % 3
    return TensorDataset(normal(count, 5, seed=seed).float() + y.unsqueeze(1), y)


@pytest.mark.parametrize("kind", ["covariance", "fisher", "correlation"])
def test_a_probe_leaves_no_trace_and_depends_on_its_seeds_alone(kind: str) -> None:
    model, data = network(), dataset()
    model.train()
    state = torch.get_rng_state()
    probe = TaskProbe(kind, 25, seeds, seeds)  # type: ignore[arg-type]
    sample = probe.draw(data, 2, torch.device("cpu"))
    assert len(probe.signature(sample)) == 0
    assert not probe.frozen
    probe.freeze(model, sample)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    signature = probe.signature(sample)
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    shapes = {"covariance": (8, 8), "correlation": (8, 8), "fisher": (sum(p.numel() for p in model.parameters()),)}
    assert signature.shape == shapes[kind]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)  # the copy does not follow
    assert torch.equal(probe.signature(sample), signature)
    again = TaskProbe(kind, 25, seeds, seeds)  # type: ignore[arg-type]
    again.load_state_dict(probe.state_dict())
    again.follow(model)
    assert torch.equal(again.signature(again.draw(data, 2, torch.device("cpu"))), signature)
    other = again.draw(data, 3, torch.device("cpu"))
    assert not torch.equal(other.x, sample.x)
    assert probe.bytes() == again.bytes() > 0


def test_the_draw_is_without_replacement_and_all_where_there_are_few() -> None:
    data = TensorDataset(torch.arange(30.0).unsqueeze(1), torch.zeros(30, dtype=torch.long))
    for count, expected in ((12, 12), (30, 30), (500, 30)):
        drawn = TaskProbe(None, count, seeds, seeds).draw(data, 0, torch.device("cpu")).x.flatten().tolist()
        assert len(drawn) == len(set(drawn)) == expected


def test_the_signature_is_of_the_features_before_the_head() -> None:
    model, data = network(), dataset()
    probe = TaskProbe("covariance", 40, seeds, seeds)
    sample = probe.draw(data, 0, torch.device("cpu"))
    probe.freeze(model, sample)
    with torch.no_grad():
        z = model.eval()[:4](sample.x)
    assert torch.allclose(probe.signature(sample), torch.cov(z.T, correction=0), atol=1e-6)


# ---- tasks whose similarity is known ---------------------------------------------------------------------------------
def test_a_label_permuted_twin_is_similar_by_features_and_not_by_the_product() -> None:
    """Trained on one task; the twin has the same inputs and the labels 1, 2, 0 in the place of 0, 1, 2."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))
    data, fresh = dataset(300), dataset(300, seed=1)
    x, y = data.tensors
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(200):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    twin = TensorDataset(fresh.tensors[0], (fresh.tensors[1] + 1) % 3)
    probe = TaskProbe("covariance", 300, seeds, seeds)
    cpu = torch.device("cpu")
    samples = [probe.draw(each, task, cpu) for task, each in enumerate((data, fresh, twin))]
    probe.freeze(model, samples[0])
    signatures = [probe.signature(sample) for sample in samples]
    features = [cosine(signatures[0], each) for each in signatures]
    readouts = [readout_of(model.eval(), sample, cross_entropy, 3) for sample in samples]
    products = [product_similarity(f, r) for f, r in zip(features, readouts, strict=True)]
    assert min(features) > 0.9
    assert products[1] > 0.4
    assert products[2] < 0.05
