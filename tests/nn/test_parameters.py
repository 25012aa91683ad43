"""Buffers that follow growing parameters, and the closed-form penalty gradient against autograd."""

from cl_ext.nn.parameters import (
    ParameterBuffers,
    QuadraticPenalty,
    add_penalty_gradient_,
    grow,
    head_names,
    largest_stable_strength,
    penalty_value,
    trainable_parameters,
)

import pytest
import torch
from torch import nn

from tests.plugins import common


def _setup() -> tuple[list[nn.Parameter], list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(0)
    shapes = [(4, 3), (4,), (2, 4)]
    parameters = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
    omega, star, scratch = ([torch.rand_like(p).detach() for p in parameters] for _ in range(3))
    return parameters, omega, star, scratch


def test_penalty_gradient_equals_autograd() -> None:
    parameters, omega, star, scratch = _setup()
    loss = sum(p.sin().sum() for p in parameters)
    penalty = sum((o * (p - s).square()).sum() for p, o, s in zip(parameters, omega, star, strict=True))
    expected = torch.autograd.grad(loss + 0.7 * penalty, parameters)
    sum(p.sin().sum() for p in parameters).backward()
    held = [p.grad for p in parameters]
    add_penalty_gradient_(parameters, omega, star, 0.7, scratch)
    for parameter, gradient, buffer in zip(parameters, expected, held, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-14, atol=1e-14)
        assert parameter.grad is buffer  # in place
    torch.testing.assert_close(penalty_value(parameters, omega, star), penalty.detach())


def test_a_parameter_without_gradient_is_pulled_back_only_where_the_penalty_pulls() -> None:
    parameters, omega, star, scratch = _setup()
    parameters[0].grad = torch.ones_like(parameters[0])
    omega[2].zero_()
    add_penalty_gradient_(parameters, omega, star, 0.5, scratch)
    torch.testing.assert_close(parameters[1].grad, omega[1] * (parameters[1] - star[1]).detach())
    assert parameters[2].grad is None
    with torch.no_grad():
        parameters[1].copy_(star[1])
    parameters[1].grad = None
    add_penalty_gradient_(parameters, omega, star, 0.5, scratch)
    assert parameters[1].grad is None  # at its anchor: no gradient of zeros for weight decay to act on


@pytest.mark.parametrize(("old", "new"), [((2, 3), (4, 3)), ((2, 3), (2, 5)), ((2, 3), (4, 5)), ((2,), (6,))])
def test_growth_keeps_the_old_block(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    block = tuple(slice(length) for length in old)
    known, parameter = torch.rand(old) + 1, torch.rand(new)
    zeros, values = grow(known, parameter, "zeros"), grow(known, parameter, "values")
    assert torch.equal(zeros[block], known)
    assert float(zeros.sum()) == pytest.approx(float(known.sum()))
    assert torch.equal(values[block], known)
    values[block] = parameter[block]
    assert torch.equal(values, parameter)


@pytest.mark.parametrize(("old", "new"), [((4, 3), (2, 3)), ((4,), (4, 1))])
def test_a_shrinking_parameter_is_refused(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a parameter may grow but went from shape"):
        grow(torch.zeros(old), torch.zeros(new), "zeros")


def test_buffers_follow_new_and_absent_parameters() -> None:
    penalty = QuadraticPenalty()
    first = {"a": torch.ones(2, 2), "b": torch.ones(3)}
    penalty.align(first)
    penalty.importance.copy_([torch.full((2, 2), 5.0), torch.full((3,), 7.0)])
    penalty.align({"a": torch.full((3, 2), 2.0), "c": torch.full((1,), 4.0)})
    omega, star = penalty.importance.tensors, penalty.anchor.tensors
    assert omega[0].tolist() == [[5, 5], [5, 5], [0, 0]]
    assert star[0].tolist() == [[1, 1], [1, 1], [2, 2]]
    assert (omega[1].tolist(), star[1].tolist()) == ([0], [4])
    penalty.align(first | {"a": torch.full((3, 2), 2.0)})
    assert penalty.importance.tensors[1].tolist() == [7, 7, 7]  # a layer frozen for a while comes back
    assert penalty.bytes() == 3 * 4 * (6 + 3 + 1)


def test_gradients_are_copied_and_absent_ones_are_zero() -> None:
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    buffers = ParameterBuffers()
    buffers.align({"a": parameters[0], "b": parameters[1]})
    (parameters[0].sum() + parameters[1].sum()).backward()
    buffers.copy_gradients_(parameters)
    assert [b.tolist() for b in buffers.tensors] == [[1, 1], [1, 1, 1]]
    parameters[0].grad = None
    buffers.copy_gradients_(parameters)
    assert [b.tolist() for b in buffers.tensors] == [[0, 0], [1, 1, 1]]


def test_state_is_a_copy() -> None:
    buffers, other = ParameterBuffers(), ParameterBuffers()
    buffers.align({"a": torch.ones(2, dtype=torch.float64)})
    state = buffers.state_dict()
    other.load_state_dict(state)
    other.align({"a": torch.ones(2)})  # as a model in another type
    buffers.tensors[0].fill_(3.0)
    assert state["a"].tolist() == other.tensors[0].tolist() == [0, 0]
    assert other.tensors[0].dtype == torch.float32


def test_heads() -> None:
    assert head_names(common.mlp()) == {"2.weight", "2.bias"}
    assert head_names(nn.Linear(2, 2)) == {"weight", "bias"}
    assert head_names(common.Growing()) == {"head.classifier.weight", "head.classifier.bias"}
    assert head_names(common.MultiHead()) == {f"heads.classifiers.0.classifier.{name}" for name in ("weight", "bias")}
    with pytest.raises(ValueError, match="ReLU has no trainable parameters"):
        trainable_parameters(nn.ReLU())


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize(("factor", "converges"), [(0.99, True), (1.01, False)])
def test_stability_bound_is_sharp(momentum: float, nesterov: bool, factor: float, converges: bool) -> None:
    omega, rate = torch.tensor([0.3, 2.0], dtype=torch.float64), 0.1
    bound = largest_stable_strength([omega], rate, momentum, nesterov)
    theta = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = torch.optim.SGD([theta], lr=rate, momentum=momentum, nesterov=nesterov)
    for _ in range(3000):
        theta.grad = 2 * factor * bound * omega * theta.detach()
        optimizer.step()
    assert (float(theta.detach().abs().max()) < 1.0) is converges


def test_stability_bound_of_no_importance() -> None:
    assert largest_stable_strength([torch.zeros(3)], 0.1) == float("inf")
