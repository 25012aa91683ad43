"""Two averages together against each on its own."""

import copy
import pickle
from collections.abc import Callable

from cl_ext.nn.averaged_pair import AveragedPair
from cl_ext.nn.averaging import AveragedNetwork

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


class Reshaped(nn.Module):
    """Reads its first layer's output by `view`, which needs one without gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(300, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).view(-1).relu().view(len(x), 20))


class Noised(nn.Module):
    """Gives its first layer another input at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(300, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x * 2.0).relu())


class Overwriting(Noised):
    """Writes into its input, so the second network sees what the first one has made of it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()) + x.neg_()[:, :3]


class Twice(Noised):
    """Calls its first layer twice, on different inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu() + self.first(x.flip(0)).relu())


JOINED: dict[str, Callable[[], nn.Module]] = {
    "chain": lambda: nn.Sequential(nn.Flatten(), nn.Linear(300, 20), nn.ReLU(), nn.Linear(20, 3)),
    "in place": lambda: nn.Sequential(nn.Flatten(), nn.Linear(300, 20), nn.ReLU(inplace=True), nn.Linear(20, 3)),
    "without bias": lambda: nn.Sequential(nn.Linear(300, 20, bias=False), nn.Tanh(), nn.Linear(20, 3)),
    "no activation": lambda: nn.Sequential(nn.Linear(300, 20), nn.Flatten(), nn.Linear(20, 3)),
    "unflattened": lambda: nn.Sequential(nn.Linear(300, 20), nn.Unflatten(1, (4, 5)), nn.Flatten(), nn.Linear(20, 3)),
    "normed": lambda: nn.Sequential(nn.Linear(300, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3)),
    "one layer": lambda: nn.Sequential(nn.Linear(300, 3)),
    "view": Reshaped,
}
APART: dict[str, Callable[[], nn.Module]] = {
    "another input": Noised,
    "overwritten input": Overwriting,
}
ALONE: dict[str, Callable[[], nn.Module]] = {
    "few inputs": lambda: nn.Sequential(nn.Linear(255, 20), nn.ReLU(), nn.Linear(20, 3)),
    "whole blocks": lambda: nn.Sequential(nn.Linear(300, 32), nn.ReLU(), nn.Linear(32, 3)),
    "norm first": lambda: nn.Sequential(nn.BatchNorm1d(300), nn.Linear(300, 20), nn.Linear(20, 3)),
}
NETWORKS = JOINED | APART | ALONE | {"twice": Twice}


def pair_of(model: nn.Module) -> AveragedPair:
    pair = AveragedPair(AveragedNetwork(0.9, 0.8, seed=1), AveragedNetwork(0.99, 0.5, seed=2))
    pair.follow(model)
    return pair


def inputs(model: nn.Module, seed: int, count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    width = next(part.shape[-1] for part in model.parameters())
    return torch.randn(count + 2, width, generator=generator)[2:]  # as in a step: the end of a larger batch


def move(model: nn.Module) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)


def products(pair: AveragedPair, x: Tensor) -> int:
    """How many matrix products the pair's passes take."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        pair(x)
    return sum(event.count for event in found.key_averages() if event.key in ("aten::addmm", "aten::mm"))


@pytest.mark.parametrize("kind", NETWORKS)
def test_it_is_both_on_their_own_while_they_move(kind: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[kind]()
    pair = pair_of(model)
    alone = [AveragedNetwork(0.9, 0.8, seed=1), AveragedNetwork(0.99, 0.5, seed=2)]
    for one in alone:
        one.follow(model)
    for step in range(12):
        if step == 7:  # an epoch begins
            pair.follow(model)
            for one in alone:
                one.follow(model)
        x = inputs(model, step)
        both, other = pair(x), x.clone() if kind == "overwritten input" else x
        if kind == "overwritten input":
            other = inputs(model, step)
        for got, one, own in zip(both, alone, (pair.first, pair.second), strict=True):
            torch.testing.assert_close(got, one(other), rtol=1e-5, atol=1e-6)
            assert got.is_contiguous()
            for (name, mine), theirs in zip(own.values().items(), one.values().values(), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7, msg=name)
        move(model)
        for one, own in zip(alone, (pair.first, pair.second), strict=True):
            assert one.step_() == own.step_()


@pytest.mark.parametrize("kind", NETWORKS)
def test_one_product_serves_both_first_layers_where_it_can(kind: str) -> None:
    model = NETWORKS[kind]()
    pair, x = pair_of(model), inputs(model, 0)
    layers = sum(isinstance(module, nn.Linear) for module in model.modules())
    if kind == "twice":  # the second network's first call finds the first one's last product, which is not its own
        expected = 6
    else:
        expected = 2 * layers - (kind in JOINED)
    assert products(pair, x) == expected


def test_the_layers_are_ordinary_ones_outside_and_the_names_stay() -> None:
    model = JOINED["chain"]()
    pair = pair_of(model)
    pair(inputs(model, 0))
    for average in (pair.first, pair.second):
        assert average.network is not None
        assert str(average.network) == str(model)
        assert [type(module) for module in average.network.modules()] == [type(module) for module in model.modules()]
        assert all("forward" not in vars(module) for module in average.network.modules())
        assert average.values().keys() == dict(model.named_parameters()).keys()
        assert average.bytes() == sum(p.nbytes for p in model.parameters())


def test_each_network_can_be_called_alone_between_two_calls() -> None:
    model = JOINED["chain"]()
    pair, x = pair_of(model), inputs(model, 0)
    move(model)
    pair.first.step_()
    before = pair(x)
    for average, output in zip((pair.first, pair.second), before, strict=True):
        torch.testing.assert_close(average(inputs(model, 0)), output)
        torch.testing.assert_close(average(inputs(model, 1)), pair(inputs(model, 1))[average is pair.second])


def test_an_error_in_a_network_leaves_the_layers_as_they_were() -> None:
    model = JOINED["chain"]()
    pair, x = pair_of(model), inputs(model, 0)
    with pytest.raises(RuntimeError):
        pair(x[:, :7])
    assert pair.first.network is not None
    assert all("forward" not in vars(module) for module in pair.first.network.modules())
    torch.testing.assert_close(pair(x)[1], pair.second(x))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_is_on_its_own(duplicate: Callable[[AveragedPair], AveragedPair]) -> None:
    model = JOINED["chain"]()
    pair, x = pair_of(model), inputs(model, 0)
    twin, before = duplicate(pair), [z.clone() for z in pair(x)]
    for average in (twin.first, twin.second):
        assert average.network is not None
        with torch.no_grad():
            for p in average.network.parameters():
                p.mul_(2.0)
    for z, old, doubled, average in zip(pair(x), before, twin(x), (twin.first, twin.second), strict=True):
        assert torch.equal(z, old)
        torch.testing.assert_close(doubled, average(x))
        assert not torch.allclose(doubled, z)


def test_a_network_that_was_moved_is_followed_where_it_went() -> None:
    model = JOINED["chain"]()
    pair, x = pair_of(model), inputs(model, 0)
    assert pair.second.network is not None
    pair.second.network.to(torch.float64).to(torch.float32)  # other memory
    with torch.no_grad():
        next(pair.second.network.parameters()).zero_()
    first, second = pair(x)
    torch.testing.assert_close(first, pair.first(x))
    torch.testing.assert_close(second, pair.second(x))
