"""ER, DER and DER++ step by step, bit for bit, against traces: the authors' code's, and a second implementation's.

A trace holds every random decision of a run (batches, draws from the memory), every loss, and the weights before and
after, in the format of `../shared/traces`. The plugin is run by Avalanche's Naive with the same decisions: a memory
that gives the recorded samples stands in for the plugin's own. The logits that it gives are those that the plugin
itself stored, and are compared with the recorded ones.
"""

import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cl_ext.nn.memory import RehearsalMemory
from cl_ext.plugins import DERPlugin, ERPlugin
from cl_ext.plugins.rehearsal import RehearsalPlugin

import numpy as np
import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn import functional

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
DATA = Path(os.environ.get("CL_EXT_DATA", Path(__file__).parents[3] / "shared" / "data"))
RECORDED = DATA.parent / "traces"
LAYERS = ("fc1", "fc2", "classifier")
Trace = dict[str, Any]


class Layers(nn.Module):
    """The traces' network: three linear layers with ReLU."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        for layer in LAYERS:
            setattr(self, layer, nn.Linear(*reversed(trace[f"init.{layer}.weight"].shape)))
        weights = {name[5:]: torch.from_numpy(value.copy()) for name, value in trace.items() if name[:5] == "init."}
        self.load_state_dict(weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


def pixels(trace: Trace) -> Tensor:
    """(N, D) in [0, 1], one division a pixel, as `ToTensor` makes it."""
    return torch.from_numpy(trace["images"]).float().div(255)


class RecordedDraws(RehearsalMemory):
    """Gives what a trace drew, with the logits that the plugin offered for these samples."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(1)
        self.x, self.order = pixels(trace), torch.from_numpy(trace["stream_index"].astype(np.int64))
        self.draws = torch.from_numpy(trace["memory_index"].astype(np.int64)).flatten(0, 1)
        self.labels = torch.from_numpy(trace["memory_label"].astype(np.int64)).flatten(0, 1)
        self.read = self.offered = 0
        self.stored: dict[int, Tensor] = {}
        self.logits: list[Tensor] = []

    def sample(self, count: int) -> dict[str, Tensor] | None:
        index, y = self.draws[self.read], self.labels[self.read]
        self.read += 1
        index, y = index[index >= 0], y[index >= 0]
        if len(index) == 0:
            return None
        assert len(index) <= count
        drawn = {"x": self.x[index], "y": y, "t": torch.zeros_like(y)}
        if self.stored:
            drawn["logits"] = torch.stack([self.stored[sample] for sample in index.tolist()])
            self.logits.append(drawn["logits"])
        return drawn

    def sample_behind(self, batch: Mapping[str, Tensor], count: int) -> dict[str, Tensor] | None:
        drawn = self.sample(count)
        return None if drawn is None else {name: torch.cat([part, drawn[name]]) for name, part in batch.items()}

    def add(self, **fields: Tensor) -> None:
        index = self.order[self.offered]
        self.offered += 1
        assert torch.equal(fields["x"], self.x[index])
        if "logits" in fields:
            self.stored |= dict(zip(index.tolist(), fields["logits"], strict=True))


class Losses(SupervisedPlugin):
    """Keeps every step's loss."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.values.append(strategy.loss.item())


def replay(plugin: RehearsalPlugin, trace: Trace, lr: float) -> tuple[dict[str, Tensor], list[float], RecordedDraws]:
    """Returns the weights after a trace's steps, every loss, and the memory that was read."""
    x, steps = pixels(trace), len(trace["stream_index"])
    order, y = (torch.from_numpy(trace[name].astype(np.int64)).flatten() for name in ("stream_index", "stream_label"))
    model, memory, losses = Layers(trace), RecordedDraws(trace), Losses()
    plugin._memory = memory
    optimizer, batch = torch.optim.SGD(model.parameters(), lr), trace["stream_index"].shape[1]
    runner = common.strategy(model, [plugin, losses], optimizer=optimizer, train_mb_size=batch, train_epochs=1)
    ends = [steps * batch * part // 3 // batch * batch for part in range(4)]  # three experiences of whole batches
    for start, end in itertools.pairwise(ends):
        part = as_classification_dataset(common.labelled(x[order[start:end]], y[start:end]))
        runner.train(benchmark_from_datasets(train=[part]).train_stream[0], shuffle=False)
    assert memory.offered == steps
    return common.weights(model), losses.values, memory


def record(
    alpha: float, beta: float, lr: float, fault: str = "", steps: int = 60, batch: int = 4, places: int = 15,
    draws: int = 8, sizes: tuple[int, ...] = (16, 12, 10, 6),
) -> Trace:  # fmt: skip
    """A trace of a second implementation, with plain tensors: ER where `alpha` is negative, else DER++.

    Args:
        alpha: weight of the logits' distance.
        beta: weight of the labels' loss.
        lr: learning rate of plain SGD.
        fault: a known fault to bring in.
        steps: of the run, over three experiences of two classes.
        batch: B.
        places: of the memory, a reservoir written sample by sample.
        draws: M.
        sizes: of the network's layers.
    """
    rng, replays = np.random.RandomState(5), alpha < 0
    labels = rng.randint(0, 2, steps * batch) + 2 * (np.arange(steps * batch) * 3 // (steps * batch))
    centres = rng.randint(0, 256, (sizes[-1], sizes[0]))
    images = np.clip(centres[labels] + rng.normal(0, 60, (len(labels), sizes[0])), 0, 255).astype(np.uint8)
    theta: dict[str, Tensor] = {}
    for layer, fan_in, fan_out in zip(LAYERS, sizes, sizes[1:], strict=False):
        theta[f"{layer}.weight"] = torch.from_numpy(rng.normal(0, fan_in**-0.5, (fan_out, fan_in))).float()
        theta[f"{layer}.bias"] = torch.zeros(fan_out)
    trace: Trace = {f"init.{name}": value.numpy().copy() for name, value in theta.items()}
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    for value in theta.values():
        value.requires_grad_()

    def net(inputs: Tensor) -> Tensor:
        for layer in LAYERS:
            inputs = functional.linear(inputs, theta[f"{layer}.weight"], theta[f"{layer}.bias"])
            inputs = inputs.relu() if layer != LAYERS[-1] else inputs
        return inputs

    memory: list[int] = []
    seen: dict[int, Tensor] = {}
    rows: dict[str, list[Any]] = {name: [] for name in ("stream_index", "memory_index", "memory_logits", "loss")}
    for step in range(steps):
        new = np.arange(step * batch, (step + 1) * batch)
        drawn = [rng.permutation(memory)[:draws].astype(int) for _ in range(1 if replays else 2)]
        first, second = drawn[0], drawn[0 if fault == "one draw" else -1]
        z = torch.stack([seen[i] for i in first]) if len(memory) else torch.zeros(0, sizes[-1])
        if replays and fault == "two means" and memory:
            loss = functional.cross_entropy(net(x[new]), y[new]) + functional.cross_entropy(net(x[first]), y[first])
        elif replays:
            both = np.concatenate([new, first])
            loss = functional.cross_entropy(net(x[both]), y[both])
        else:
            h = net(x[new])
            loss = functional.cross_entropy(h, y[new])
            if memory:
                weight = alpha * sizes[-1] if fault == "squared norm" else alpha
                loss = loss + weight * functional.mse_loss(net(x[first]), z)
                loss = loss + beta * functional.cross_entropy(net(x[second]), y[second])
        gradients = torch.autograd.grad(loss, list(theta.values()))
        before = net(x[new]).detach()
        with torch.no_grad():
            for value, gradient in zip(theta.values(), gradients, strict=True):
                value.sub_(gradient, alpha=lr)
        stored = net(x[new]).detach() if fault == "logits after the step" else before
        for n, index in enumerate(new.tolist(), start=step * batch):
            seen[index] = stored[n - step * batch]
            slot = n if n < places else rng.randint(n + 1)
            memory[slot : slot + 1] = [index] if slot < places else []
        padded = [np.concatenate([part, np.full(draws - len(part), -1)]) for part in drawn]
        kept = torch.cat([z, torch.zeros(draws - len(z), sizes[-1])]).numpy()
        for name, value in zip(rows, (new, padded, kept, loss.item()), strict=True):
            rows[name].append(value)
    trace |= {name: np.array(value) for name, value in rows.items()}
    trace |= {"images": images, "stream_label": labels[trace["stream_index"]]}
    trace["memory_label"] = np.where(trace["memory_index"] < 0, -1, labels[trace["memory_index"]])
    return trace | {f"net.{name}": value.detach().numpy() for name, value in theta.items()}


def far(plugin: RehearsalPlugin, trace: Trace, lr: float) -> float:
    """Returns the largest difference of weights, losses and stored logits; 0 where all are equal bit for bit."""
    weights, losses, memory = replay(plugin, trace, lr)
    differences = [
        float((value - torch.from_numpy(trace[f"net.{name}"])).abs().max()) for name, value in weights.items()
    ]
    differences.append(float(np.abs(np.array(losses) - trace["loss"]).max()))
    if isinstance(plugin, DERPlugin):
        draws = trace["memory_index"].shape[1]
        for step, given in enumerate(memory.logits[::draws], start=1):
            recorded = torch.from_numpy(trace["memory_logits"][step])
            differences.append(float((given - recorded[: len(given)]).abs().max()))
            assert not recorded[len(given) :].any()
        assert step == len(losses) - 1  # all but the first
    return max(differences)


ER = (lambda: ERPlugin(15, 8), {"alpha": -1.0, "beta": 0.0, "lr": 0.2})
DERPP = (lambda: DERPlugin(0.5, 0.7, 15, 8), {"alpha": 0.5, "beta": 0.7, "lr": 0.1})


@pytest.mark.parametrize(("make", "values"), [ER, DERPP], ids=["er", "derpp"])
def test_it_replays_the_second_implementation(make: Callable[[], Any], values: dict[str, float]) -> None:
    assert far(make(), record(**values), values["lr"]) == 0.0


@pytest.mark.parametrize(
    ("make", "values", "fault"),
    [(*ER, "two means"), (*DERPP, "one draw"), (*DERPP, "squared norm"), (*DERPP, "logits after the step")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_negative_control(make: Callable[[], Any], values: dict[str, float], fault: str) -> None:
    """A trace of a run with a known fault is not replayed."""
    assert far(make(), record(**values, fault=fault), values["lr"]) > 1e-2


@pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no traces of the authors' code under {RECORDED}; set CL_EXT_DATA")
@pytest.mark.parametrize(
    ("name", "make", "lr"),
    [("er", lambda: ERPlugin(200, 10), 0.01), ("derpp", lambda: DERPlugin(0.2, 1.0, 200, 128), 0.03)],
    ids=["er", "derpp"],
)
def test_it_replays_the_authors_code(name: str, make: Callable[[], Any], lr: float) -> None:
    """300 steps over three experiences: every weight, every loss and every stored logit, bit for bit."""
    with np.load(RECORDED / f"{name}.npz") as stored:
        assert far(make(), dict(stored), lr) == 0.0
