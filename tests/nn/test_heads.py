"""Heads by task: their rows, what evaluation may not do, padding, and states of networks that grew."""

from cl_ext.nn.heads import TaskHeads

import pytest
import torch
from torch import nn


def _heads(classes: int = 6) -> TaskHeads:
    torch.manual_seed(0)
    return TaskHeads(nn.Linear(5, classes))


def test_heads_begin_as_one_shared_head_would() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(5, 6)
    heads = TaskHeads(shared)
    state = torch.get_rng_state()
    heads.add(3, {4, 1})
    assert torch.equal(state, torch.get_rng_state())
    z = torch.randn(7, 5)
    logits = heads(z, 3)
    assert logits.shape == (7, 5)  # classes 0 to 4
    assert torch.allclose(logits[:, [1, 4]], shared(z)[:, [1, 4]])


def test_a_class_that_a_task_lacks_can_never_be_its_answer() -> None:
    """Avalanche pads with 0: an old task whose logits are all negative then answers a class that it never had."""
    heads = _heads()
    with torch.no_grad():
        heads.add(0, [0, 1]).bias.fill_(-50.0)  # type: ignore[union-attr]
    heads.add(1, [2, 3, 4])
    logits = heads(torch.randn(20, 5), 0)
    assert logits.shape == (20, 5)
    assert bool((logits[:, 2:] == float("-inf")).all())
    assert int(logits.argmax(1).max()) <= 1


def test_the_loss_reaches_the_own_head_alone_and_is_that_of_its_classes() -> None:
    heads = _heads()
    heads.add(0, [0, 1])
    heads.add(1, [2, 3])
    z, y = torch.randn(8, 5), torch.arange(8) % 2 + 2
    loss = nn.functional.cross_entropy(heads(z, 1), y)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(nn.functional.cross_entropy(heads[1](z), y - 2).item())
    assert heads[0].weight.grad is None
    assert bool(torch.isfinite(heads[1].weight.grad).all())  # type: ignore[arg-type]


def test_a_task_without_a_head_has_no_logits_and_gets_no_head() -> None:
    heads = _heads()
    heads.add(0, [0, 2])
    assert bool((heads(torch.randn(2, 5), 9) == float("-inf")).all())
    assert heads.tasks == [0]


def test_classes_that_come_later_join_a_head_in_order() -> None:
    heads = _heads()
    heads.add(0, [4, 0])
    before = heads[0].weight.detach().clone()
    heads.add(0, [2, 4])
    assert heads[0].classes.tolist() == [0, 2, 4]
    assert torch.equal(heads[0].weight[[0, 2]], before)
    assert torch.equal(heads[0].weight[1], heads.template_weight[2])


def test_ids_beyond_the_template_take_its_rows_in_turn() -> None:
    heads = _heads(2)
    heads.add(1, [7, 8, 9])
    assert torch.equal(heads[1].weight, heads.template_weight[[0, 1, 0]])


def test_inputs_that_are_added_are_read_by_chosen_heads_only() -> None:
    heads = _heads()
    heads.add(0, [0, 1])
    heads.add(1, [2, 3])
    columns = torch.randn(6, 2)
    heads.add_inputs(columns, tasks=[1])
    assert heads[0].weight.shape == (2, 5)
    assert torch.equal(heads[1].weight[:, 5:], columns[[2, 3]])
    assert heads.add(2, [4, 5]).weight.shape == (2, 7)


def test_a_state_with_grown_heads_is_read_into_new_ones() -> None:
    heads, fresh = _heads(), _heads()
    heads.add(0, [0, 1])
    heads.add_inputs(torch.randn(6, 2))
    heads.add(5, [2, 3, 5])
    fresh.add(9, [1])
    fresh.load_state_dict(heads.state_dict())
    assert fresh.tasks == [0, 5]
    z = torch.randn(3, 7)
    assert torch.equal(fresh(z, 5), heads(z, 5))
    assert torch.equal(fresh(z[:, :5], 0), heads(z[:, :5], 0))
