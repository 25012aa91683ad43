"""CLS-ER step by step against traces: one of our own making by a second implementation, and the authors' code's.

A trace holds every random decision of a run (batches, draws from the memory, coins), every loss, and the weights of the
three networks before and after. The plugin is run by Avalanche's Naive with the same decisions.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from cl_ext.plugins import CLSERPlugin

import numpy as np
import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
SHARED = Path(__file__).parents[3] / "shared/traces/clser.npz"
LAYERS, NETWORKS = ("fc1", "fc2", "classifier"), ("net", "plastic_model", "stable_model")
Trace = dict[str, Any]
Values = dict[str, float]
PUBLISHED: Values = {"lr": 0.03, "weight": 2.0, "plastic_alpha": 0.99, "stable_alpha": 0.99, "plastic_rate": 1.0,
                     "stable_rate": 0.9}  # fmt: skip
OURS = PUBLISHED | {"lr": 0.2, "plastic_alpha": 0.9, "stable_alpha": 0.95, "stable_rate": 0.6}


# ---- a second implementation: numpy for everything but the gradient of the weights --------------------------------
def _forward(theta: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    inputs = [x]
    for layer in LAYERS:
        z = inputs[-1] @ theta[f"{layer}.weight"].T + theta[f"{layer}.bias"]
        inputs.append(np.maximum(z, 0.0) if layer != LAYERS[-1] else z)
    return inputs[-1], inputs


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def record(
    values: Values, fault: str = "", steps: int = 90, batch: int = 4, places: int = 15, draws: int = 8,
    sizes: tuple[int, ...] = (16, 12, 10, 6),
) -> Trace:  # fmt: skip
    """CLS-ER in numpy, with the gradient by hand, in float64, over three experiences of two classes.

    Args:
        values: hyper-parameters.
        fault: a known fault to bring in.
        steps: of the run.
        batch: B.
        places: of the memory.
        draws: M.
        sizes: of the network's layers.
    """
    rng = np.random.RandomState(5)
    classes = sizes[-1]
    centres = rng.randint(0, 256, (classes, sizes[0]))
    experience = np.arange(steps * batch) * 3 // (steps * batch)
    labels = 2 * experience + rng.randint(0, 2, steps * batch)
    images = np.clip(centres[labels] + rng.normal(0, 60, (steps * batch, sizes[0])), 0, 255).astype(np.uint8)
    theta = {}
    for layer, (fan_in, fan_out) in zip(LAYERS, pairwise(sizes), strict=True):
        theta[f"{layer}.weight"] = rng.uniform(-1, 1, (fan_out, fan_in)).astype(np.float32) / fan_in**0.5
        theta[f"{layer}.bias"] = np.zeros(fan_out, np.float32)
    theta = {name: value.astype(np.float64) for name, value in theta.items()}
    trace: Trace = {f"init.{name}": value.astype(np.float32) for name, value in theta.items()}
    averages = {which: dict(theta) for which in ("plastic", "stable")}
    memory: list[int] = []
    found: dict[str, list[Any]] = {name: [] for name in ("stream_index", "memory_index", "coins", "loss")}
    for k in range(1, steps + 1):
        new = np.arange((k - 1) * batch, k * batch)
        drawn = rng.permutation(memory)[:draws].astype(int) if memory else np.zeros(0, int)
        rows = np.concatenate([new, drawn])
        x, y = images[rows] / 255.0, labels[rows]
        z, inputs = _forward(theta, x)
        p = _softmax(z)
        loss = -np.log(p[np.arange(len(y)), y]).mean()
        by_z = (p - np.eye(classes)[y]) / len(y)
        if len(drawn):
            z_p, z_s = (_forward(averages[which], x[batch:])[0] for which in ("plastic", "stable"))
            own = np.arange(len(drawn)), y[batch:]
            score = (lambda u: u) if fault == "raw logits" else _softmax
            better = score(z_s)[own] > score(z_p)[own]
            if fault == "worse teacher":
                better = ~better
            teacher = np.where(better[:, None], z_s, z_p)
            count = len(drawn) if fault == "sum over classes" else z_s.size
            difference = z[batch:] - teacher
            loss += values["weight"] * (difference**2).sum() / count
            by_z[batch:] += values["weight"] * 2 * difference / count
        for depth in reversed(range(3)):
            layer = LAYERS[depth]
            by_weight, by_bias = by_z.T @ inputs[depth], by_z.sum(0)
            by_z = (by_z @ theta[f"{layer}.weight"]) * (inputs[depth] > 0)
            theta = theta | {
                f"{layer}.weight": theta[f"{layer}.weight"] - values["lr"] * by_weight,
                f"{layer}.bias": theta[f"{layer}.bias"] - values["lr"] * by_bias,
            }
        coins = rng.uniform(size=2)
        order = ("stable", "plastic") if fault == "coins swapped" else ("plastic", "stable")
        for which, coin in zip(order, coins, strict=True):
            a = min(1 - 1 / (k + 1), values[f"{which}_alpha"])
            a = values[f"{which}_alpha"] if fault == "no warm-up" else a
            if coin < values[f"{which}_rate"]:
                averages[which] = {n: a * averages[which][n] + (1 - a) * theta[n] for n in theta}
        for place, index in enumerate(new, start=(k - 1) * batch):  # what is drawn is recorded, so any rule will do
            if len(memory) < places:
                memory.append(int(index))
            elif (slot := rng.randint(place + 1)) < places:
                memory[slot] = int(index)
        found["stream_index"].append(new)
        found["memory_index"].append([np.concatenate([drawn, -np.ones(draws - len(drawn), int)])])
        found["coins"].append(coins)
        found["loss"].append(loss)
    trace |= {name: np.array(value) for name, value in found.items()}
    trace["images"], trace["stream_label"] = images, labels[trace["stream_index"]]
    trace["memory_label"] = np.where(trace["memory_index"] < 0, -1, labels[trace["memory_index"]])
    for network, weights in zip(NETWORKS, (theta, averages["plastic"], averages["stable"]), strict=True):
        trace |= {f"{network}.{name}": value.astype(np.float32) for name, value in weights.items()}
    return trace


# ---- the plugin, fed with a trace's decisions ------------------------------------------------------------------------
class Layers(nn.Module):
    """The network of the traces, with its recorded weights."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        for layer in LAYERS:
            weight = trace[f"init.{layer}.weight"]
            setattr(self, layer, nn.Linear(weight.shape[1], weight.shape[0]))
        self.load_state_dict({name[5:]: torch.tensor(v) for name, v in trace.items() if name.startswith("init.")})

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


class RecordedDraws:
    """Stands in for the memory: gives what was drawn, and looks whether it is offered the stream."""

    def __init__(self, trace: Trace) -> None:
        self.x, self.trace, self.read, self.offered = pixels(trace), trace, 0, 0

    def sample_behind(self, batch: Mapping[str, Tensor], count: int) -> dict[str, Tensor] | None:
        index = self.trace["memory_index"][self.read, 0].astype(int)
        labels = self.trace["memory_label"][self.read, 0].astype(int)
        self.read += 1
        present = index >= 0
        if not present.any():
            return None
        assert present.sum() <= count
        y = torch.tensor(labels[present])
        drawn = {"x": self.x[index[present]], "y": y, "t": torch.zeros_like(y)}
        return {name: torch.cat([part, drawn[name]]) for name, part in batch.items()}

    def add(self, **fields: Tensor) -> None:
        expected = self.x[self.trace["stream_index"][self.offered].astype(int)]
        assert torch.equal(fields["x"].view_as(expected), expected)  # the stream's part of the batch, once a step
        self.offered += 1

    def __len__(self) -> int:
        return 0

    def to(self, device: Any) -> None:
        """It is on the CPU."""

    def bytes(self) -> int:
        return 0


class Losses(SupervisedPlugin):
    """Keeps every step's loss."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.values.append(strategy.loss.item())


def pixels(trace: Trace) -> Tensor:
    """Inputs (N, D) in [0, 1]."""
    return torch.tensor(trace["images"]).float() / 255


def experiences(trace: Trace) -> Iterator[Any]:
    """The stream, cut where the labels leave the pair of classes."""
    x, pair = pixels(trace), trace["stream_label"].max(1) // 2
    starts = [0, *(np.flatnonzero(np.diff(pair)) + 1).tolist(), len(pair)]
    for start, end in pairwise(starts):
        rows = trace["stream_index"][start:end].astype(int).ravel()
        labels = trace["stream_label"][start:end].astype(int).ravel()
        part = as_classification_dataset(common.labelled(x[rows], torch.tensor(labels)))
        yield benchmark_from_datasets(train=[part]).train_stream[0]


def distances(trace: Trace, values: Values, **options: Any) -> dict[str, float]:
    """Replays a trace; returns the largest difference of the weights of each network, and of the losses."""
    plugin = CLSERPlugin(
        values["weight"], mem_size=200, mem_batch_size=trace["memory_index"].shape[2],
        plastic_alpha=values["plastic_alpha"], stable_alpha=values["stable_alpha"],
        plastic_rate=values["plastic_rate"], stable_rate=values["stable_rate"], **options,
    )  # fmt: skip
    memory: Any = RecordedDraws(trace)
    plugin._memory = memory
    for column, average in enumerate((plugin.plastic, plugin.stable)):
        coins = iter(trace["coins"][:, column].tolist())
        average.coin = lambda coins=coins: next(coins)  # type: ignore[method-assign, misc]
    model, losses = Layers(trace), Losses()
    optimizer = torch.optim.SGD(model.parameters(), values["lr"])
    size = trace["stream_index"].shape[1]
    runner = common.strategy(model, [plugin, losses], optimizer=optimizer, train_mb_size=size, train_epochs=1)
    visited = [runner.train(experience, shuffle=False) for experience in experiences(trace)]
    assert len(visited) == 3
    assert memory.read == memory.offered == len(trace["loss"]) == len(losses.values)
    assert next(coins, None) is None
    found = {"loss": float(np.abs(np.array(losses.values) - trace["loss"]).max())}
    for name, network in zip(NETWORKS, (model, plugin.plastic.network, plugin.stable.network), strict=True):
        assert network is not None
        recorded = {key: torch.tensor(trace[f"{name}.{key}"]) for key in network.state_dict()}
        found[name] = max(float((v - recorded[key]).abs().max()) for key, v in network.state_dict().items())
    return found


@pytest.mark.parametrize("options", [{}, {"shared_forward": False}])
def test_it_replays_the_second_implementation(options: dict[str, Any]) -> None:
    found = distances(record(OURS), OURS, **options)
    assert all(value < 5e-6 for value in found.values()), found


@pytest.mark.parametrize("fault", ["raw logits", "worse teacher", "sum over classes", "coins swapped", "no warm-up"])
def test_negative_controls(fault: str) -> None:
    """Each known fault is far outside what the replay lets pass, in the networks that it concerns."""
    found = distances(record(OURS, fault), OURS)
    concerned = NETWORKS[1:] if fault in ("coins swapped", "no warm-up") else NETWORKS
    assert all(found[name] > 1e-3 for name in concerned), found


@pytest.mark.skipif(not SHARED.exists(), reason="the recorded traces of the authors' code are not here")
def test_it_replays_the_authors_code() -> None:
    """300 steps over three experiences, within 1e-5 for the three networks and every loss."""
    with np.load(SHARED) as stored:
        trace = dict(stored)
    found = distances(trace, PUBLISHED)
    assert all(value < 1e-5 for value in found.values()), found
