"""A sum that is added up late."""

import math

from cl_ext.nn.late_sum import _AT_ONCE, LateSum

import pytest
import torch


@pytest.mark.parametrize("steps", [0, 1, _AT_ONCE - 1, _AT_ONCE, 3 * _AT_ONCE + 7])
def test_it_is_the_exact_sum_whenever_it_is_asked_for(steps: int) -> None:
    torch.manual_seed(0)
    terms, late = [torch.randn(()) for _ in range(steps)], LateSum()
    for index, term in enumerate(terms):
        late.add(term)
        if index % 100 == 0:
            assert late.total() == pytest.approx(math.fsum(float(t) for t in terms[: index + 1]), abs=1e-9)
    assert late.total() == late.total() == pytest.approx(math.fsum(float(t) for t in terms), abs=1e-9)


def test_small_terms_beside_a_large_one_are_not_lost() -> None:
    late = LateSum()
    late.add(torch.tensor(2.0**25))
    for _ in range(1000):
        late.add(torch.tensor(1.0))  # in single precision 2^25 + 1 = 2^25
    assert late.total() == 2.0**25 + 1000


def test_of_booleans_it_is_how_many_and_shapes_may_differ() -> None:
    late = LateSum()
    for count in (3, 0, 5):
        late.add(torch.ones(count, dtype=torch.bool))
    late.add(torch.eye(2, dtype=torch.bool))
    assert late.total() == 10


def test_no_graph_is_kept_and_few_terms_are() -> None:
    late, weight = LateSum(), torch.ones(2, requires_grad=True)
    for _ in range(10 * _AT_ONCE + 1):
        late.add((weight * 2).sum())
    assert len(late._terms) == 1
    assert all(term.grad_fn is None for term in late._terms)
    assert late.total() == 4 * (10 * _AT_ONCE + 1)
