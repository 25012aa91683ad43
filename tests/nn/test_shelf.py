"""Tensors by key: kept, replaced, dropped, and read back from a state."""

from cl_ext.nn.shelf import Shelf

import torch


def test_put_get_drop() -> None:
    shelf = Shelf()
    shelf.put(1, {"a.weight": torch.ones(2), "b": torch.zeros(3)})
    shelf.put(11, {"a.weight": torch.full((2,), 5.0)})
    assert {name: tensor.tolist() for name, tensor in shelf.get(1).items()} == {"a.weight": [1, 1], "b": [0, 0, 0]}
    shelf.put(1, {"c": torch.ones(1)})
    assert list(shelf.get(1)) == ["c"]
    assert shelf.keys() == ["11", "1"]
    shelf.drop(11)
    assert shelf.get(11) == {}


def test_a_state_replaces_what_was_there() -> None:
    shelf, fresh = Shelf(), Shelf()
    shelf.put(2, {"layer.0.bias": torch.arange(3.0)})
    fresh.put(7, {"old": torch.ones(1)})
    fresh.load_state_dict(shelf.state_dict())
    assert fresh.keys() == ["2"]
    assert torch.equal(fresh.get(2)["layer.0.bias"], torch.arange(3.0))
    shelf.get(2)["layer.0.bias"].fill_(9.0)
    assert torch.equal(fresh.get(2)["layer.0.bias"], torch.arange(3.0))  # a copy
