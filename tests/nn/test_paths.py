"""Paths through modules: mutation by its law, sums over active modules, and networks made of ordinary ones."""

from typing import Any

from cl_ext.models import NetworkSpec, build_network
from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.models.modular import pathnet
from cl_ext.nn.paths import PathFeatures, Paths, mutated, random_paths

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

DRAWS = 40000


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _features(network: ExpandableNetwork) -> PathFeatures:
    assert isinstance(network.features, PathFeatures)
    return network.features


def _cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(96, 8), nn.ReLU(inplace=True), nn.Linear(8, 5),
    )  # fmt: skip


# ---- genotypes ----------------------------------------------------------------------------------------------------


def test_a_gene_mutates_with_probability_one_in_their_number() -> None:
    """A3: chi-square of the number of shifted genes, and of the shifts themselves."""
    layers, active, modules = 3, 4, 11
    generator = _generator()
    path = random_paths(1, layers, active, modules, generator)[0]
    shifts = torch.cat([(mutated(path, modules, generator) - path).flatten() % modules for _ in range(DRAWS // 12)])
    assert set(shifts.tolist()) == {0, 1, 2, 9, 10}  # -2 to 2 modulo 11
    p = 1 / 12
    expected = {0: 1 - p * 4 / 5} | dict.fromkeys((1, 2, 9, 10), p / 5)  # a shift of 0 leaves the gene
    counts = [int((shifts == value).sum()) for value in expected]
    assert chisquare(counts, [share * len(shifts) for share in expected.values()]).pvalue > 1e-3
    doubled = [share * len(shifts) for share in (1 - 2 * p * 4 / 5, *[2 * p / 5] * 4)]
    assert chisquare(counts, doubled).pvalue < 1e-9  # the test would see another rate


def test_genes_are_drawn_evenly() -> None:
    genes = random_paths(DRAWS // 6, 2, 3, 7, _generator())
    assert genes.shape == (DRAWS // 6, 2, 3)
    assert chisquare(torch.bincount(genes.flatten()).numpy()).pvalue > 1e-3


def test_mutation_leaves_its_argument() -> None:
    path = torch.zeros(2, 3, dtype=torch.int64)
    children = [mutated(path, 5, _generator(seed)) for seed in range(30)]
    assert path.eq(0).all()
    assert any(child.ne(0).any() for child in children)


# ---- the network --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["mlp", "cnn"])
def test_one_module_of_full_width_is_the_network(make: str) -> None:
    """A4."""
    model = _cnn() if make == "cnn" else build_network(NetworkSpec("mlp", hidden=(7, 5)), (1, 8, 8), 5)
    network = pathnet(model, modules=1, active=1).eval()
    network.heads.add(0, range(5))
    network.scheme = Paths()
    network.scheme.put(0, torch.zeros(2, 1, dtype=torch.int64))
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(network(x, 0), model.eval()(x))


def test_outputs_of_active_modules_are_summed() -> None:
    network = pathnet(_cnn(), modules=4, active=2).eval()
    features = _features(network)
    x = torch.randn(4, 1, 8, 8)
    first, second = features.layers
    h = first[3](x) + first[1](x)  # type: ignore[index]
    z = second[2](h)  # type: ignore[index]
    path = torch.tensor([[3, 1], [2, 2]])  # a module that is named twice is active once
    assert torch.allclose(features(x, path), z, atol=1e-6)
    assert torch.equal(features(x), features(x, torch.tensor([[0, 1], [1, 0]])))  # the first two of each layer
    assert not torch.allclose(features(x, path), second[2](h) * 2)  # type: ignore[index]


def test_the_order_of_modules_does_not_matter() -> None:
    """A5."""
    network = pathnet(_cnn(), modules=4, active=3).eval()
    features = _features(network)
    x, path = torch.randn(4, 1, 8, 8), torch.tensor([[0, 2, 3], [1, 0, 3]])
    before = features(x, path)
    order = torch.tensor([2, 0, 3, 1])  # module i of now is order[i] of before
    for layer in range(2):
        features.layers[layer] = nn.ModuleList(features.module(layer, int(i)) for i in order)
    renamed = order.argsort()[path]
    assert torch.allclose(features(x, renamed), before, atol=1e-6)
    assert not torch.allclose(features(x, path), before, atol=1e-2)


def test_the_active_modules_have_as_many_units_as_the_layer() -> None:
    network = pathnet(_cnn(), modules=5, active=2)
    features = _features(network)
    assert features.shape == (2, 2, 5)
    conv, linear = features.module(0, 4)[0], features.module(1, 4)[0]
    assert conv.weight.shape == (3, 1, 3, 3)
    assert features.module(0, 4)[1].num_features == 3
    assert linear.weight.shape == (4, 3 * 16)
    assert network.heads.template_weight.shape == (5, 4)
    weights: list[Any] = [features.module(1, m)[0].weight for m in range(5)]
    assert all(not torch.equal(weights[m], weights[m + 1]) for m in range(4))
    assert 0.9 / 48**0.5 < torch.stack(weights).abs().max() <= 1 / 48**0.5  # as nn.Linear begins


def test_the_seed_draws_the_weights_and_nothing_else_does() -> None:
    state = torch.get_rng_state()
    one, two, other = (pathnet(_cnn(), 3, 2, seed=seed).state_dict() for seed in (4, 4, 5))
    torch.manual_seed(0)
    _cnn()
    assert all(torch.equal(a, b) for a, b in zip(one.values(), two.values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))
    torch.set_rng_state(state)
    model = _cnn()
    state = torch.get_rng_state()
    pathnet(model, 3, 2)
    assert torch.equal(state, torch.get_rng_state())


def test_a_module_that_rests_leaves_its_statistics() -> None:
    """Negative control: one that does not rest moves them."""
    features = _features(pathnet(_cnn(), 2, 1)).train()
    x = torch.randn(8, 1, 8, 8)
    resting, moving = features.module(0, 0), features.module(0, 1)
    before = [t.clone() for m in (resting, moving) for t in m.buffers()]
    resting.rest()
    answer = resting(x)
    assert torch.equal(resting(x[:3]), answer[:3])
    moving(x)
    after = [*resting.buffers(), *moving.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(before[:3], after[:3], strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(before[3:], after[3:], strict=True))
    assert not any(p.requires_grad for p in resting.parameters())


def test_weights_that_a_user_froze_are_not_drawn_again() -> None:
    module: Any = _features(pathnet(_cnn(), 1, 1)).module(1, 0)
    weight, bias = module[0].weight.clone(), module[0].bias.clone()
    module[0].weight.requires_grad_(False)
    module.redraw(_generator())
    assert torch.equal(module[0].weight, weight)
    assert not torch.equal(module[0].bias, bias)


def test_the_effective_weights_are_those_on_the_path() -> None:
    network = pathnet(_cnn(), 3, 2)
    scheme = Paths()
    scheme.put(7, torch.tensor([[0, 2], [1, 1]]))
    names = {name.rsplit(".", 2)[0] for name in scheme.effective(network.features, 7)}
    assert names == {"layers.0.0", "layers.0.2", "layers.1.1"}
    used = scheme.used((2, 2, 3), [7])
    assert used.tolist() == [[True, False, True], [False, True, False]]
    with pytest.raises(ValueError, match="task 8 has no path"):
        scheme.read(network.features, torch.zeros(1, 1, 8, 8), 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"modules": 0}, ValueError, "modules >= 1 and active from 1 to modules, got 0 and 3"),
        ({"modules": 2, "active": 3}, ValueError, "got 2 and 3"),
        ({"width": 1.5}, ValueError, r"a width in \(0, 1\], got 1.5"),
    ],
)
def test_impossible_numbers_are_one_sentence(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pathnet(_cnn(), **arguments)


def test_what_is_no_chain_is_one_sentence() -> None:
    with pytest.raises(TypeError, match="is a BasicBlock"):
        pathnet(build_network(NetworkSpec("resnet18", width=2), (1, 8, 8), 4))
    with pytest.raises(TypeError, match=r"pathnet takes an nn\.Sequential"):
        pathnet(nn.Linear(3, 2))


def test_along_takes_each_module_once_in_order() -> None:
    features = _features(pathnet(_cnn(), 4, 3))
    path: Tensor = torch.tensor([[3, 0, 3], [1, 2, 0]])
    chosen = [[features.module(0, 0), features.module(0, 3)], [features.module(1, m) for m in (0, 1, 2)]]
    assert all(a is b for rows in zip(features.along(path), chosen, strict=True) for a, b in zip(*rows, strict=True))
