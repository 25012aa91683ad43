"""Splitting: what each half is, who reads which, and that what the latest task computes stays."""

from cl_ext.nn.splitting import drift, drifted, split_bias, split_weight

import pytest
import torch
from torch import Tensor


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_drift_by_loops_over_old_inputs_and_the_bias() -> None:
    prev, bias = randn(4, 3), randn(4, seed=1)
    weight, now = randn(6, 5, seed=2), randn(6, seed=3)
    rho = drift(weight, now, prev, bias)
    for i in range(4):
        squares = sum(float(weight[i, j] - prev[i, j]) ** 2 for j in range(3)) + float(now[i] - bias[i]) ** 2
        assert float(rho[i]) == pytest.approx(squares**0.5)
    assert drift(weight[:, :3], None, prev, None).shape == (4,)
    kernels, old = randn(3, 2, 3, 3, seed=4), randn(2, 2, 3, 3, seed=5)
    expected = torch.stack([(kernels[i] - old[i]).square().sum().sqrt() for i in range(2)])
    assert torch.allclose(drift(kernels, None, old, None), expected)


def test_the_units_above_sigma_and_the_farthest_of_them() -> None:
    rho = torch.tensor([0.1, 0.9, 0.5, 0.0, 0.7, 0.5])
    assert drifted(rho, 0.5).tolist() == [1, 4]
    assert drifted(rho, 0.0).tolist() == [0, 1, 2, 4, 5]
    assert drifted(rho, 0.4, most=2).tolist() == [1, 4]
    assert drifted(rho, 0.4, most=0).tolist() == []
    assert drifted(rho, 2.0).tolist() == []


def test_the_ascending_order_of_the_official_code_is_caught() -> None:
    """Negative control: it splits those above sigma that moved least."""
    rho = torch.tensor([0.1, 0.9, 0.5, 0.0, 0.7])
    official = [i for i in rho.argsort().tolist() if rho[i] > 0.4][:2]
    assert sorted(official) != drifted(rho, 0.4, most=2).tolist()


def layer_pair(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A layer of 5 units, 4 of them old, that reads 6 units, 4 of them old: now and before, weight and bias."""
    return randn(5, 6, seed=seed), randn(5, seed=seed + 1), randn(4, 4, seed=seed + 2), randn(4, seed=seed + 3)


@pytest.mark.parametrize("outgoing", ["replace", "duplicate"])
def test_originals_are_as_before_and_copies_as_now(outgoing: str) -> None:
    weight, bias, prev, prev_bias = layer_pair()
    rows, columns = torch.tensor([1, 3]), torch.tensor([0, 2])
    new = split_weight(weight, prev, rows, columns, outgoing)  # type: ignore[arg-type]
    assert new.shape == (7, 8)
    assert torch.equal(new[rows, :4], prev[rows])
    assert not new[rows, 4:].any()
    # a copy reads an input's original or its copy, in all as its original did, or both ("duplicate")
    for copy, row in zip(new[5:], weight[rows], strict=True):
        if outgoing == "replace":
            assert not copy[columns].any()
        else:
            assert torch.equal(copy[columns], row[columns])
        assert torch.equal(copy[6:], row[columns])
        others = torch.tensor([1, 3, 4, 5])
        assert torch.equal(copy[others], row[others])
    assert torch.equal(split_bias(bias, prev_bias, rows)[rows], prev_bias[rows])
    assert torch.equal(split_bias(bias, prev_bias, rows)[5:], bias[rows])


def test_an_old_reader_reads_the_original_as_before_and_the_rest_of_its_copy() -> None:
    weight, _, prev, _ = layer_pair()
    columns = torch.tensor([0, 2])
    new = split_weight(weight, prev, torch.tensor([1]), columns, "replace")
    old = torch.tensor([0, 2, 3])
    assert torch.equal(new[old][:, columns], prev[old][:, columns])
    assert torch.equal(new[old][:, 6:], weight[old][:, columns] - prev[old][:, columns])
    duplicate = split_weight(weight, prev, torch.tensor([1]), columns, "duplicate")
    assert torch.equal(duplicate[old][:, :6], weight[old])
    assert torch.equal(duplicate[old][:, 6:], weight[old][:, columns])


def hidden(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return torch.relu(x @ weight.T + bias)


def test_replacing_changes_nothing_of_the_latest_task_where_all_readers_are_split() -> None:
    """Two layers and a head, every old unit of the second one split."""
    w1, b1, p1, q1 = layer_pair(0)
    w2, b2 = randn(5, 5, seed=10), randn(5, seed=11)
    p2, q2 = randn(4, 4, seed=12), randn(4, seed=13)
    head, x = randn(3, 5, seed=14), randn(20, 6, seed=15)
    before = hidden(w2, b2, hidden(w1, b1, x)) @ head.T
    none, some, every = torch.zeros(0, dtype=torch.int64), torch.tensor([0, 2]), torch.arange(4)
    n1, c1 = split_weight(w1, p1, some, none), split_bias(b1, q1, some)
    n2, c2 = split_weight(w2, p2, every, some), split_bias(b2, q2, every)
    top = split_weight(head, None, none, every)
    after = hidden(n2, c2, hidden(n1, c1, x)) @ top.T
    assert torch.allclose(after, before, atol=1e-12)
    both = split_weight(head, None, none, every, "duplicate")
    assert not torch.allclose(hidden(n2, c2, hidden(n1, c1, x)) @ both.T, before, atol=1e-3)


def test_where_an_old_reader_was_not_split_the_change_is_what_the_docstring_says() -> None:
    """Before its activation: `prev_ij (h_j - h_j')`."""
    w1, b1, p1, q1 = layer_pair(0)
    w2, p2 = randn(5, 5, seed=10), randn(4, 4, seed=12)
    x = randn(20, 6, seed=15)
    none, some = torch.zeros(0, dtype=torch.int64), torch.tensor([0, 2])
    h = hidden(w1, b1, x)
    new = hidden(split_weight(w1, p1, some, none), split_bias(b1, q1, some), x)
    change = new @ split_weight(w2, p2, none, some).T - h @ w2.T
    expected = (new[:, some] - h[:, some]) @ p2[:, some].T
    assert torch.allclose(change[:, :4], expected, atol=1e-12)
    assert torch.allclose(change[:, 4:], torch.zeros(20, 1, dtype=torch.float64), atol=1e-12)


def test_kernels_split_like_entries() -> None:
    weight, prev = randn(4, 3, 2, 2), randn(3, 2, 2, 2, seed=1)
    rows, columns = torch.tensor([2]), torch.tensor([1])
    for outgoing in ("replace", "duplicate"):
        new = split_weight(weight, prev, rows, columns, outgoing)  # type: ignore[arg-type]
        assert new.shape == (5, 4, 2, 2)
        for a in range(2):
            for b in range(2):
                flat = split_weight(weight[:, :, a, b], prev[:, :, a, b], rows, columns, outgoing)  # type: ignore[arg-type]
                assert torch.equal(new[:, :, a, b], flat)


def test_nothing_chosen_nothing_changed() -> None:
    weight, _, prev, _ = layer_pair()
    none = torch.zeros(0, dtype=torch.int64)
    assert torch.equal(split_weight(weight, prev, none, none), weight)
