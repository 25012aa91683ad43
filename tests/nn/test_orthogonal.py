"""Both bases against dense linear algebra in float64: projection, growth, dropping, rounding in float32."""

from typing import Any

from cl_ext.nn.logit_gradients import Samples, are_factored, logit_factors, logit_rows, logit_seeds
from cl_ext.nn.orthogonal import ExplicitBasis, FlatVector
from cl_ext.nn.orthogonal_factors import Factors, ImplicitBasis

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

D, H, K = 5, 7, 4
Basis = ExplicitBasis | ImplicitBasis


def network(dtype: torch.dtype = torch.float64, width: int = H, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, width), nn.Tanh(), nn.Linear(width, K)).to(dtype)


def samples(count: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, D, generator=generator, dtype=torch.float64).to(dtype)
    return Samples(x, torch.randint(K, (count,), generator=generator), None)


def extend(basis: Basis, model: nn.Module, group: Samples, variant: Any = "gtl", room: int | None = None) -> int:
    parameters = dict(model.named_parameters())
    seeds = logit_seeds(variant, functional.cross_entropy)
    basis.align(parameters)
    room = room or len(group.x) * (K if variant == "all" else 1)
    if isinstance(basis, ImplicitBasis):
        return basis.extend(logit_factors(model, parameters, [group], seeds), room)
    return basis.extend(logit_rows(model, parameters, [group], seeds), room)


def stored(model: nn.Module, group: Samples, variant: Any = "gtl") -> Tensor:
    """The directions by their definition, one backward pass each, (R, P)."""
    rows = []
    for phi, y in zip(model(group.x), group.y, strict=True):
        outputs = {"gtl": [phi[y]], "ave": [phi.mean()], "all": list(phi)}[variant]
        for output in outputs:
            gradients = torch.autograd.grad(output, list(model.parameters()), retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


def project(basis: Basis, model: nn.Module, x: Tensor) -> Tensor:
    vector = FlatVector(dict(model.named_parameters()))
    vector.flat.copy_(x)
    basis.project_(vector)
    return vector.flat.clone()


def dense(v: Tensor, x: Tensor) -> Tensor:
    """x - V V^+ x by a singular value decomposition; v (R, P)."""
    _, s, right = torch.linalg.svd(v, full_matrices=False)
    q = right[s > 1e-9 * s.max()]
    return x - q.t() @ (q @ x)


def gradient(model: nn.Module, seed: int = 5) -> Tensor:
    size = sum(p.numel() for p in model.parameters())
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


both = pytest.mark.parametrize("make", [ExplicitBasis, ImplicitBasis])


@both
@pytest.mark.parametrize("variant", ["gtl", "all", "ave"])
def test_it_is_the_orthogonal_projection(make: Any, variant: Any) -> None:
    model, group = network(), samples(6)
    basis = make()
    extend(basis, model, group, variant)
    g, v = gradient(model), stored(model, group, variant)
    kept = project(basis, model, g)
    torch.testing.assert_close(kept, dense(v, g), rtol=0, atol=1e-12)
    torch.testing.assert_close(project(basis, model, kept), kept, rtol=0, atol=1e-12)  # idempotent
    assert float((v @ kept).abs().max()) < 1e-12
    assert float(g @ kept) == pytest.approx(float(kept @ kept), rel=1e-12)  # <g, g~> = |g~|^2: descent
    assert float(kept @ kept) > 0.1
    inside = v.t() @ torch.arange(1.0, len(v) + 1, dtype=torch.float64)
    assert float(project(basis, model, inside).norm()) < 1e-11 * float(inside.norm())


def test_rows_are_orthonormal() -> None:
    model, basis = network(), ExplicitBasis()
    for seed in (1, 2, 3):
        extend(basis, model, samples(8, seed))
    assert basis.size == 24
    torch.testing.assert_close(basis.rows @ basis.rows.t(), torch.eye(24, dtype=torch.float64), rtol=0, atol=1e-14)


def test_implicit_equals_explicit_and_twice_projected_qr() -> None:
    """120 directions in four instalments, an MLP of two hidden layers."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(D, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, K)).double()
    bases: list[Basis] = [ExplicitBasis(), ImplicitBasis()]
    everything = []
    for seed in range(4):
        everything.append(stored(model, samples(30, seed)))
        for basis in bases:
            assert extend(basis, model, samples(30, seed)) == 30
    g = gradient(model)
    explicit, implicit = (project(basis, model, g) for basis in bases)
    torch.testing.assert_close(implicit, explicit, rtol=0, atol=1e-12)
    q = torch.linalg.qr(torch.cat(everything).t())[0]
    for _ in range(2):
        g = g - q @ (q.t() @ g)
    torch.testing.assert_close(implicit, g, rtol=0, atol=1e-12)


@both
def test_duplicates_change_nothing(make: Any) -> None:
    """A Gram matrix that is singular: the copies are dropped, within one instalment and across two."""
    model, group = network(), samples(6)
    twice = Samples(torch.cat([group.x, group.x]), torch.cat([group.y, group.y]), None)
    once, doubled, again = make(), make(), make()
    extend(once, model, group)
    assert extend(doubled, model, twice) == 6
    extend(again, model, group)
    assert extend(again, model, group) == 0
    g = gradient(model)
    for other in (doubled, again):
        torch.testing.assert_close(project(other, model, g), project(once, model, g), rtol=0, atol=1e-12)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_directions_than_parameters_leave_nothing(make: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, basis = nn.Linear(D, K).to(dtype), make()
    extend(basis, model, samples(12, dtype=dtype), "all")
    assert basis.size == K * (D + 1)
    g = gradient(model)
    assert float(project(basis, model, g).norm()) < (1e-5 if dtype is torch.float32 else 1e-12) * float(g.norm())


@both
def test_zero_gradients_are_dropped(make: Any) -> None:
    model, basis = network(), make()
    with torch.no_grad():
        model[2].weight.zero_()
    model[2].bias.requires_grad_(False)
    group = samples(3)
    parameters = {n: p for n, p in model.named_parameters() if n.startswith("0")}
    basis.align(parameters)
    seeds = logit_seeds("gtl", functional.cross_entropy)
    new: Any = (logit_factors if make is ImplicitBasis else logit_rows)(model, parameters, [group], seeds)
    assert basis.extend(new, 3) == 0


@both
def test_room(make: Any) -> None:
    """Where there is no room for all, the first to come stay."""
    model, group = network(), samples(6)
    basis, first = make(), make()
    assert extend(basis, model, group, room=4) == 4
    extend(first, model, Samples(group.x[:4], group.y[:4], None))
    g = gradient(model)
    torch.testing.assert_close(project(basis, model, g), project(first, model, g), rtol=0, atol=1e-13)


@both
def test_growing_pads_with_zeros(make: Any) -> None:
    """Entries that did not exist are in no direction, and move freely."""
    model, basis = network(), make()
    extend(basis, model, samples(6))
    v = dict(zip(["0.weight", "0.bias", "2.weight", "2.bias"], stored(model, samples(6)).split([35, 7, 28, 4], 1),
                 strict=True))  # fmt: skip
    wide = nn.Sequential(nn.Linear(D, H + 2), nn.Tanh(), nn.Linear(H + 2, K + 3)).double()
    parameters = dict(wide.named_parameters())
    basis.align(parameters)
    padded = []
    for name, p in parameters.items():
        old = dict(model.named_parameters())[name]
        block = p.new_zeros(6, *p.shape)
        block[tuple(slice(n) for n in (6, *old.shape))] = v[name].view(6, *old.shape)
        padded.append(block.flatten(1))
    g = gradient(wide)
    torch.testing.assert_close(project(basis, wide, g), dense(torch.cat(padded, 1), g), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="a parameter may grow but went from shape"):
        basis.align(dict(model.named_parameters()))


@both
@pytest.mark.parametrize("gone", ["0.weight", "0.bias", "0", "2.bias"])
def test_frozen_parameters_are_cut_out(make: Any, gone: str) -> None:
    """What is left of the directions is made a basis again; the frozen entries are in no projection."""
    model, basis = network(), make()
    extend(basis, model, samples(6))
    names = [name for name, _ in model.named_parameters()]
    parts = dict(zip(names, stored(model, samples(6)).split([35, 7, 28, 4], 1), strict=True))
    left = {name: p for name, p in model.named_parameters() if not name.startswith(gone)}
    basis.align(left)
    vector = FlatVector(left)
    g = gradient(model)[: len(vector.flat)]
    vector.flat.copy_(g)
    basis.project_(vector)
    expected = dense(torch.cat([parts[name] for name in left], 1), g)
    torch.testing.assert_close(vector.flat, expected, rtol=0, atol=1e-12)


@both
def test_a_state_goes_on_bit_equal(make: Any) -> None:
    model, basis, other = network(), make(), make()
    extend(basis, model, samples(6))
    other.load_state_dict(basis.state_dict())
    for each in (basis, other):
        extend(each, model, samples(5, 9))
    g = gradient(model)
    assert torch.equal(project(basis, model, g), project(other, model, g))
    assert basis.bytes() == other.bytes() == make.bytes_for(11, dict(model.named_parameters()))


@both
def test_float32_accuracy_with_a_thousand_directions(make: Any) -> None:
    """Applied twice the overlap stays at rounding; applied once, the known fault, it is a hundred times that.

    Explicit: a step that lies in the span but for 1/2000. Implicit: a random step; the condition number of V is 8e4.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 60), nn.Tanh(), nn.Linear(60, 46), nn.Tanh(), nn.Linear(46, K))
    group = samples(1000, dtype=torch.float32)
    seeds = logit_seeds("gtl", functional.cross_entropy)
    v = functional.normalize(torch.cat(list(logit_rows(model, dict(model.named_parameters()), [group], seeds))), dim=1)
    x = 1e-2 * torch.randn(v.shape[1]) + (v.sum(0) if make is ExplicitBasis else 0.0)

    def overlap(kept: Tensor) -> float:
        """The largest cosine between what is kept and a stored gradient."""
        return float((v.double() @ kept.double()).abs().max() / kept.double().norm())

    basis = make()
    extend(basis, model, group)
    assert basis.size == 1000
    twice = overlap(project(basis, model, x))
    assert twice < 1e-7
    assert overlap(_once(basis, model, x)) > 100 * twice


def _once(basis: Basis, model: nn.Module, x: Tensor) -> Tensor:
    if isinstance(basis, ExplicitBasis):
        return x - basis.rows.t() @ (basis.rows @ x)
    vector = FlatVector(dict(model.named_parameters()))
    vector.flat.copy_(x)
    weights = [
        (vector.named[f"{layer}.weight"], vector.named[f"{layer}.bias"], f) for layer, f in basis.factors.items()
    ]
    y = torch.stack([((f.a @ w.t() + b) * f.d).sum(1) for w, b, f in weights]).sum(0).double()
    c = torch.cholesky_solve(y.unsqueeze(1), basis.cholesky).float()
    for w, b, f in weights:
        w -= (f.d * c).t() @ f.a
        b -= f.d.t() @ c.squeeze(1)
    return vector.flat


def test_what_has_factors() -> None:
    group = samples(3)
    plain = network()
    normed = nn.Sequential(nn.Linear(D, H), nn.BatchNorm1d(H), nn.Linear(H, K)).double().eval()
    tokens = nn.Sequential(nn.Unflatten(1, (1, D)), nn.Linear(D, K), nn.Flatten()).double()
    shared = nn.Linear(D, D).double()
    again = nn.Sequential(shared, shared, nn.Linear(D, K).double())
    tied = nn.Sequential(nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, K)).double()
    tied[1].weight = tied[0].weight
    for model, expected in [(plain, True), (normed, False), (tokens, False), (again, False), (tied, False)]:
        assert are_factored(model, dict(model.named_parameters()), group) == expected
    for model in (normed, tokens, again, tied):
        before = list(model.parameters())
        basis = ExplicitBasis()
        extend(basis, model, group)
        assert all(p is q for p, q in zip(before, model.parameters(), strict=True))
        v = stored(model, group)
        g = gradient(model)
        torch.testing.assert_close(project(basis, model, g), dense(v, g), rtol=0, atol=1e-12)


def test_factors_are_the_gradients() -> None:
    """Row n is `d_n a_n^T`, and a layer that did not run has zeros."""
    model, group = network(), samples(4)
    factors = logit_factors(
        model, dict(model.named_parameters()), [group], logit_seeds("gtl", functional.cross_entropy)
    )
    rows = stored(model, group)
    assert isinstance(factors["0"], Factors)
    outer = torch.einsum("no,ni->noi", factors["0"].d, factors["0"].a)
    torch.testing.assert_close(outer.flatten(1), rows[:, :35], rtol=0, atol=1e-14)
    torch.testing.assert_close(factors["0"].d, rows[:, 35:42], rtol=0, atol=1e-14)
