"""The networks against independent ones, their heads, and what they refuse."""

import cl_ext  # noqa: F401
from cl_ext.models import NetworkSpec, build_network

import pytest
import torch
from avalanche.models import SlimResNet18


def test_mlp_is_the_sequential_it_says():
    network = build_network(NetworkSpec(hidden=(7, 5)), (1, 4, 4), 3)
    w1, b1, w2, b2, w3, b3 = network.parameters()
    x = torch.randn(6, 1, 4, 4)
    by_hand = torch.relu(torch.relu(x.reshape(6, 16) @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
    torch.testing.assert_close(network(x), by_hand)
    torch.testing.assert_close(network.classifier(network.get_features(x)), by_hand)


def test_an_mlp_without_biases_has_none():
    names = [name for name, _ in build_network(NetworkSpec(bias=False), (10,), 3).named_parameters()]
    assert names
    assert not [name for name in names if "bias" in name]


def test_resnet18_is_the_fields_slim_one():
    """Equal to Avalanche's SlimResNet18, which is GEM's, once it has its weights."""
    ours, theirs = build_network(NetworkSpec("resnet18"), (3, 32, 32), 10), SlimResNet18(10)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 1_094_750
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(4, 3, 32, 32)
    for mode in (True, False):
        ours.train(mode), theirs.train(mode)
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18"])
def test_every_network_takes_every_image(name, shape):
    assert build_network(NetworkSpec(name), shape, 11)(torch.zeros(2, *shape)).shape == (2, 11)


def test_flat_samples_are_for_the_mlp():
    assert build_network(NetworkSpec(), (13,), 4)(torch.zeros(2, 13)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"takes square images.*\(13,\).*use an mlp"):
        build_network(NetworkSpec("cnn"), (13,), 4)


def test_a_growing_head_starts_small():
    assert build_network(NetworkSpec(head="growing"), (13,), 10)(torch.zeros(2, 13)).shape == (2, 2)


def test_xavier_weights_fill_their_range_and_biases_are_zero():
    """U(-a, a) with a = sqrt(6 / (D_in + D_out)), whose variance is a^2 / 3; the head too."""
    torch.manual_seed(0)
    network = build_network(NetworkSpec(init="xavier"), (1, 28, 28), 10)
    weights, biases = list(network.parameters())[::2], list(network.parameters())[1::2]
    assert [tuple(w.shape) for w in weights] == [(100, 784), (100, 100), (10, 100)]
    for w in weights:
        bound = (6 / sum(w.shape)) ** 0.5
        assert 0.99 * bound < float(w.abs().max()) <= bound
        assert abs(float(w.square().mean()) / (bound**2 / 3) - 1) < 0.1
        assert abs(float(w.mean())) < 0.1 * bound
    assert not any(bool(b.any()) for b in biases)
    default = build_network(NetworkSpec(), (1, 28, 28), 10)
    assert all(bool(b.any()) for b in list(default.parameters())[1::2])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "vgg"}, "'vgg'.*mlp, cnn, resnet18"),
        ({"head": "many"}, "'many'.*full, growing"),
        ({"init": "he"}, "init is 'he'.*default, xavier"),
        ({"name": "cnn", "init": "xavier"}, "init is for the mlp"),
        ({"head": "growing", "init": "xavier"}, "for a full head"),
        ({"hidden": (0,)}, "at least 1"),
        ({"name": "cnn", "hidden": (3,)}, "for the mlp"),
        ({"width": 3}, "for cnn and resnet18"),
        ({"name": "cnn", "width": 0}, "at least 1"),
    ],
)
def test_bad_networks(fields, words):
    with pytest.raises(ValueError, match=words):
        NetworkSpec(**fields)


@pytest.mark.parametrize("spec", [NetworkSpec(), NetworkSpec("cnn"), NetworkSpec("resnet18", width=8)])
def test_round_trip(spec):
    assert NetworkSpec.from_dict(spec.to_dict()) == spec
