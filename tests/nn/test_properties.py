"""Properties of random networks: wider layers that several layers read, proximal steps, and what a task reads of all.

Each is held against arithmetic of its own: functions before and after, a numerical minimiser, dense matrices.
"""

from cl_ext.nn.chain import chain
from cl_ext.nn.growth import append_units
from cl_ext.nn.masked import MaskedScheme
from cl_ext.nn.net2net import UnitGroup, draw_mapping, widen
from cl_ext.nn.proximal import shrink_groups_, soft_, sparse_group_, sparsify_
from cl_ext.nn.resizing import add_inputs, add_outputs
from cl_ext.nn.stamped import Stamped

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor, nn

seeds = st.integers(0, 100_000)
few = settings(max_examples=25)


# ---- Net2WiderNet ---------------------------------------------------------------------------------------------------


def _noisy_norm(norm: nn.Module) -> nn.Module:
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data.uniform_(0.5, 2.0)  # type: ignore[union-attr, operator]
    return norm.double().eval()


@few
@given(seed=seeds, makers=st.integers(1, 3), readers=st.integers(1, 4), units=st.integers(1, 6), more=st.integers(0, 8),
       images=st.booleans(), normed=st.booleans())  # fmt: skip
def test_a_wider_layer_says_the_same_to_all_that_read_it(
    seed: int, makers: int, readers: int, units: int, more: int, images: bool, normed: bool
) -> None:
    """Makers are added up, as by a skip connection; channels are read by convolutions, and flattened (2 x 3 each)."""
    torch.manual_seed(seed)
    made: list[nn.Module]
    read: list[tuple[nn.Module, int]]
    if images:
        made = [nn.Conv2d(2, units, 3, padding=1).double() for _ in range(makers)]
        read = [(nn.Linear(units * 6, 3).double(), 6) if i % 2 else (nn.Conv2d(units, 2, 1).double(), 1)
                for i in range(readers)]  # fmt: skip
        norm, x = nn.BatchNorm2d(units), torch.randn(4, 2, 2, 3).double()
    else:
        made = [nn.Linear(5, units).double() for _ in range(makers)]
        read = [(nn.Linear(units, 1 + i).double(), 1) for i in range(readers)]
        norm, x = nn.BatchNorm1d(units), torch.randn(4, 5).double()
    _noisy_norm(norm)

    def outputs() -> list[Tensor]:
        h = torch.stack([maker(x) for maker in made]).sum(0)
        h = (norm(h) if normed else h).relu()
        return [reader(h.flatten(1) if isinstance(reader, nn.Linear) else h) for reader, _ in read]

    before, columns = outputs(), [reader.weight.detach().clone() for reader, _ in read]  # type: ignore[union-attr, operator]
    g = draw_mapping(units, units + more, torch.Generator().manual_seed(seed))
    widen(UnitGroup("h", tuple(made), (norm,) if normed else (), tuple(read)), g)  # type: ignore[arg-type]
    for old, new in zip(before, outputs(), strict=True):
        assert torch.allclose(old, new, rtol=0, atol=1e-10)
    for (reader, block), old in zip(read, columns, strict=True):
        assert reader.weight.shape[1] == (units + more) * block  # type: ignore[union-attr]
        by_unit = reader.weight.detach().reshape(len(old), units + more, -1)  # type: ignore[union-attr, operator]
        summed = torch.zeros(len(old), units, by_unit.shape[2], dtype=torch.float64).index_add_(1, g, by_unit)
        assert torch.allclose(summed, old.reshape(len(old), units, -1), rtol=0, atol=1e-12)


# ---- proximal steps -------------------------------------------------------------------------------------------------


def _least(w: Tensor, l1: float, kernels: float, group: float) -> float:
    """The least `1/2 |v - w|^2 + l1 |v|_1 + kernels sum_k |v_k|_2 + group |v|_2` of a row (n, k) that search finds."""
    target = w.numpy()

    def cost(flat: np.ndarray) -> float:
        v = flat.reshape(target.shape)
        penalty = l1 * np.abs(v).sum() + kernels * np.linalg.norm(v, axis=1).sum() + group * np.linalg.norm(v)
        return float(0.5 * np.square(v - target).sum() + penalty)

    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 6000, "maxfev": 6000}
    # a simplex can stop at a kink; the strictly convex cost has no other minimum, so that any lower point is one
    starts = [target.ravel(), 0.5 * target.ravel(), np.zeros(target.size)]
    found = [minimize(cost, start, method="Nelder-Mead", options=options).fun for start in starts]
    return min(*found, cost(np.zeros(target.size)))


def _cost(v: Tensor, w: Tensor, l1: float, kernels: float, group: float) -> float:
    penalty = l1 * v.abs().sum() + kernels * v.norm(dim=1).sum() + group * v.norm()
    return float(0.5 * (v - w).square().sum() + penalty)


strengths = st.sampled_from([0.0, 0.1, 0.4, 0.9, 1.7])


@settings(max_examples=12)
@given(seed=seeds, entries=st.integers(1, 3), l1=strengths, group=strengths)
def test_proximal_steps_of_matrices_are_minima(seed: int, entries: int, l1: float, group: float) -> None:
    w = torch.randn(2, entries, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    both, soft, rows = w.clone(), w.clone(), w.clone()
    sparse_group_(both, l1, group)
    soft_([soft], l1)
    shrink_groups_(rows, group, (1,))
    for i in range(len(w)):
        for v, penalties in ((both, (l1, 0.0, group)), (soft, (l1, 0.0, 0.0)), (rows, (0.0, 0.0, group))):
            least = _least(w[i, :, None], *penalties)
            assert abs(_cost(v[i, :, None], w[i, :, None], *penalties) - least) < 1e-6


@settings(max_examples=6)
@given(seed=seeds, l1=strengths, group=strengths)
def test_proximal_steps_of_convolutions_are_minima(seed: int, l1: float, group: float) -> None:
    """A row of two kernels of 1 x 2: sparse in kernels, and as a whole."""
    w = torch.randn(1, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    both, kernels = w.clone(), w.clone()
    sparse_group_(both, l1, group)
    sparsify_([kernels], l1)
    row = w[0, :, 0]
    for v, penalties in ((both, (0.0, l1, group)), (kernels, (0.0, l1, 0.0))):
        assert abs(_cost(v[0, :, 0], row, *penalties) - _least(row, *penalties)) < 1e-6


# ---- what a task reads of a network that later tasks share and widen -------------------------------------------------


@few
@given(seed=seeds, widths=st.lists(st.integers(0, 3), min_size=1, max_size=4), kept=st.floats(0, 1))
def test_a_masked_tasks_network_is_the_dense_one_of_its_entries(seed: int, widths: list[int], kept: float) -> None:
    """Tasks that own random entries of a growing network: each reads those up to its own, at its own width."""
    torch.manual_seed(seed)
    features = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU()).double()
    first, second = features[0], features[2]
    scheme, x = MaskedScheme.of({"0.weight": first.weight, "2.weight": second.weight}), torch.randn(5, 3).double()
    known: list[Tensor] = []
    with torch.no_grad():
        for task, more in enumerate(widths):
            if task:
                add_outputs(first, torch.randn(more, 3).double(), None)
                add_inputs(second, torch.zeros(2, more).double())
                for name, layer in (("0.weight", first), ("2.weight", second)):
                    scheme.owners.grow(name, layer.weight.shape)
            scheme.owners.claim(task + 1)
            for name, layer in (("0.weight", first), ("2.weight", second)):
                owned = scheme.owners.owned(name, task + 1)
                layer.weight[owned] = torch.randn(int(owned.sum())).double()
                given_up = owned & (torch.rand_like(layer.weight) > kept)
                scheme.owners.release(name, given_up)
                layer.weight.masked_fill_(given_up, 0.0)
                layer.bias.copy_(torch.randn_like(layer.bias))
            biases = {"0.bias": first.bias, "2.bias": second.bias}
            scheme.close(features, task, biases)
            dense = [layer.weight.clone() for layer in (first, second)]
            h = (x @ dense[0].T + first.bias).relu()
            known.append((h @ dense[1].T + second.bias).relu())
        for task, answer in enumerate(known):
            assert torch.allclose(scheme.read(features, x, task), answer, rtol=0, atol=1e-12)
            units = int(scheme.sizes.get(task)["0.weight"][0])
            assert units == 4 + sum(widths[1 : task + 1])
            before = scheme.read(features, x, task)
            saved = [layer.weight.clone() for layer in (first, second)]
            for name, layer in (("0.weight", first), ("2.weight", second)):
                seen = torch.zeros_like(layer.weight, dtype=torch.bool)
                visible = scheme.visible(features, task)[name]
                seen[: visible.shape[0], : visible.shape[1]] = visible
                layer.weight.copy_(torch.where(seen, layer.weight, torch.full_like(layer.weight, 7.0)))
            assert torch.equal(scheme.read(features, x, task), before)
            for layer, weight in zip((first, second), saved, strict=True):
                layer.weight.copy_(weight)


@few
@given(seed=seeds, growths=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=4))
def test_a_stamped_tasks_network_is_the_first_units_of_each_layer(seed: int, growths: list[tuple[int, int]]) -> None:
    """Units that come later, and whatever reads them, can be anything."""
    torch.manual_seed(seed)
    features = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 3), nn.ReLU()).double()
    x, scheme, known, sizes = torch.randn(5, 1, 3, 3).double(), Stamped(), [], []
    with torch.no_grad():
        for task, counts in enumerate(growths):
            for index, count in enumerate(counts if task else (0, 0)):
                stages = chain(features, features[3].out_features)
                shape = (count, *stages[index].layer.weight.shape[1:])
                append_units(stages, index, torch.randn(shape).double())
            stages = chain(features, features[3].out_features)
            scheme.stamp(stages, task)
            sizes.append((stages[0].units, stages[1].units))
            known.append(features(x))  # new inputs of old units are 0 until a later task trains them
        assert [tuple(row) for row in scheme.stamps.tolist()] == sizes
        for task, (channels, units) in enumerate(sizes):
            conv, linear = features[0], features[3]
            for tensor, corner in ((conv.weight, (channels,)), (conv.bias, (channels,)),
                                   (linear.weight, (units, channels * 4)), (linear.bias, (units,))):  # fmt: skip
                old = tensor.clone()
                tensor.fill_(7.0)
                tensor[tuple(slice(0, end) for end in corner)] = old[tuple(slice(0, end) for end in corner)]
                assert torch.allclose(scheme.read(features, x, task), known[task], rtol=0, atol=1e-12)
                tensor.copy_(old)
