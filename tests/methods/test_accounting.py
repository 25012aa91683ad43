"""Extra bytes are what a method has to keep: counted by hand."""

import cl_ext  # noqa: F401
from cl_ext.methods.accounting import held_bytes, sample_bytes, structure
from cl_ext.models.expansion import expandable
from cl_ext.streams import StreamSpec, build_stream

import torch
from avalanche.training.plugins import EWCPlugin
from torch import nn


class _Own:
    def extra_bytes(self):
        return 7


def test_tensors_are_counted_once_and_at_their_own_size():
    network = nn.Linear(3, 2)
    plugin = EWCPlugin(1.0)
    whole = torch.zeros(1000)
    plugin.importances = {"weight": torch.zeros(2, 3), "again": None, "part": whole[:10]}
    plugin.importances["again"] = plugin.importances["weight"]
    plugin.anchor = [network.weight.detach(), network.weight.detach().clone()]
    assert held_bytes([plugin], without=network) == 24 + 40 + 24


def test_modules_and_reporters_are_asked():
    network = nn.Linear(3, 2)
    assert held_bytes([nn.BatchNorm1d(4), _Own(), network], without=network) == 4 * 4 * 4 + 8 + 7


def test_a_stored_sample_is_counted_as_it_is_trained_on():
    dataset = build_stream(StreamSpec("split", "digits", "class", experiences=5)).train_stream[0].dataset
    assert sample_bytes(dataset) == 64 * 4 + 8
    plugin = EWCPlugin(1.0)
    plugin.memory = dataset.subset(range(20))
    assert held_bytes([plugin], without=nn.Linear(1, 1)) == 20 * (64 * 4 + 8)


class _Telling:
    def __init__(self, **told):
        vars(self).update(told)


def test_what_a_method_tells_of_its_network():
    """Units of a trained chain; a plugin's own account of its tasks, under either name; nothing of other networks."""
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert structure(plain, [_Own()]) == {}
    network = expandable(plain)
    assert structure(network, []) == {}
    network.heads.add(0, [0, 1])
    with torch.no_grad():
        network.features[0].weight[1] = 0
    told = structure(network, [_Own(), _Telling(decisions=[{"task": 0, "ratio": 0.5}])])
    assert told == {"units": {"0": [[1.0, 0.0, 1.0, 1.0]]}, "history": [{"task": 0, "ratio": 0.5}]}
    assert structure(plain, [_Telling(history=[{"task": 0}])]) == {"history": [{"task": 0}]}
