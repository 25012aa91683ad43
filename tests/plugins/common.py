"""Small streams, networks and runs that the plugin tests share.

Run as a module it is the fresh process of the resume test.
"""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.models import Network, dualnet
from cl_ext.models.columns import progressive
from cl_ext.models.expansion import expandable
from cl_ext.models.expert_network import experts
from cl_ext.models.growable import growable
from cl_ext.models.modular import pathnet
from cl_ext.nn.passes import preserved_random_state
from cl_ext.nn.scheme import Scheme
from cl_ext.nn.shelf import Shelf
from cl_ext.nn.task_gate import TaskGate
from cl_ext.plugins import (
    AGEMPlugin,
    CLSERPlugin,
    CPGPlugin,
    DENPlugin,
    DERPlugin,
    DualNetPlugin,
    EBLLPlugin,
    EMAOGDPlugin,
    ERPlugin,
    EWCPlugin,
    ExpertGatePlugin,
    GEMPlugin,
    GenerativeReplayPlugin,
    HATPlugin,
    IMMPlugin,
    L2Plugin,
    LocalMASPlugin,
    LwFPlugin,
    MASPlugin,
    Net2NetPlugin,
    OGDPlugin,
    PackNetPlugin,
    PathNetPlugin,
    PNNPlugin,
    RWalkPlugin,
    SCPPlugin,
    SimEMAPlugin,
    SIPlugin,
)
from cl_ext.plugins.quadratic import QuadraticPenaltyPlugin

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.scenarios.supervised import class_incremental_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

FEATURES, CLASSES, EXPERIENCES = 6, 8, 4


@dataclass(frozen=True)
class Case:
    """A plugin under the contracts.

    Attributes:
        name: of the case.
        make: the plugin's class.
        options: arguments with which it bites.
        off: arguments, beside the options, with which it equals Naive on the same network bit for bit; None where no
            setting does.
        copies: it may hold so many times the network's parameters, and no more.
        result: what the method has learnt, from the strategy: its network's weights, unless it predicts otherwise.
        refuses: what it cannot do, and the sentence that says so: the name of a network (`normed`, `Growing`,
            `MultiHead`), the kind of a stream, "frozen", "one sample" or "composed".
        prepare: what makes the network that it trains of an ordinary one.
        kind: the stream of the runs; "nc-tasks" for a method that needs task labels.
        off_experiences: how many experiences it equals Naive on when it is off.
        keeps: whether it keeps anything beside the network.
    """

    name: str
    make: Any
    options: Mapping[str, Any]
    off: Mapping[str, Any] | None
    copies: float = 9.0
    result: Callable[[Naive], dict[str, Tensor]] = lambda runner: weights(runner.model)
    refuses: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[nn.Module], nn.Module] = lambda model: model
    kind: str = "nc"
    off_experiences: int = EXPERIENCES
    keeps: bool = True

    def run(
        self, plugins: list[Any], network: Callable[[], nn.Module], kind: str | None = None, **options: Any
    ) -> Naive:
        """Returns a strategy trained on the whole stream, on the network prepared for the plugin."""
        return run(plugins, self.on(network), kind or self.kind, **options)

    def on(self, network: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        """Returns the function that makes `network` prepared for the plugin."""
        return lambda: self.prepare(network())

    def __call__(self, **changes: Any) -> Any:
        return self.make(**(dict(self.options) | changes))

    @contextmanager
    def may_refuse(self, *what: Any) -> Iterator[None]:
        """Expects the announced error if any of `what` (names, or networks by their functions) is refused."""
        names = [each if isinstance(each, str) else each.__name__ for each in what]
        messages = [self.refuses[name] for name in names if name in self.refuses]
        if not messages:
            yield
            return
        with pytest.raises((TypeError, ValueError, NotImplementedError), match=messages[0]):
            yield


DUALNET = {"dualnet_lambda": 1.0, "mem_size": 12, "mem_batch_size": 8, "ssl_batch_size": 8, "projection": (8, 8),
           "slow_lr": 0.01, "n_outer": 1, "beta": 0.5}  # fmt: skip
NO_GROWTH = {"Growing": "this is a Growing", "MultiHead": "this is a MultiHead", "frozen": "are frozen"}

NO_TASK = {"Growing": "not a Growing", "MultiHead": "not a MultiHead", "ci": "a task label of its own"}
NO_EXPERT = {name: f"asks for no task label; this {name}" for name in ("Growing", "MultiHead")}
NO_COLUMN = NO_TASK | {"frozen": "no trainable parameters in its hidden layers"}

CPG = {"ladder": (0.3, 0.6), "prune_epochs": 0.5, "recover_epochs": 0.5, "retrain_epochs": 1.0, "mask_every": 1,
       "train_floor": 0.0, "mask_lr": 5e-3, "retrain_mask_lr": 5e-3, "hold_out": 0.2, "tasks": 5}  # fmt: skip
KEEP_ALL = {"goal": 0.0, "max_width": 1.0, "ladder": (), "hold_out": 0.0, "picking": False}

CASES = [
    Case(
        "den",
        DENPlugin,
        {"mu": 1e-3, "tau": 0.02, "sigma": 0.1, "k": 3},
        {"mu": 0.0, "l2": 0.0},
        copies=4.0,
        prepare=expandable,
        kind="nc-tasks",
        off_experiences=1,
        result=lambda runner: unschemed(runner),
        refuses=NO_TASK | {"frozen": "none can be frozen"},
    ),
    Case(
        "den-all-grow",
        DENPlugin,
        {
            "mu": 1e-3,
            "tau": -1.0,
            "sigma": 0.0,
            "k": 2,
            "split_outgoing": "duplicate",
            "freeze_restored": True,
            "max_splits": 2,
            "iterations": 3,
            "stamp": False,
            "seed": 1,
        },
        {"mu": 0.0, "l2": 0.0},
        copies=4.0,
        prepare=expandable,
        kind="nc-tasks",
        off_experiences=1,
        result=lambda runner: unschemed(runner),
        refuses=NO_TASK | {"frozen": "none can be frozen"},
    ),
    Case(
        "hat",
        HATPlugin,
        {"hat_lambda": 0.1, "s_max": 50.0},
        None,
        copies=4.0,
        prepare=expandable,
        kind="nc-tasks",
        refuses=NO_TASK | {"frozen": "no trainable parameters"},
    ),
    Case(
        "hat-hard",
        HATPlugin,
        {"hat_lambda": 1.0, "gates": "hard", "embedding_lr": 0.01, "clip": 1.0, "seed": 1},
        None,
        copies=3.0,
        prepare=expandable,
        kind="nc-tasks",
        refuses=NO_TASK | {"frozen": "no trainable parameters"},
    ),
    Case("rwalk", RWalkPlugin, {"rwalk_lambda": 5.0, "delta_t": 3}, {"rwalk_lambda": 0.0}),
    Case("rwalk-batch", RWalkPlugin, {"rwalk_lambda": 5.0, "delta_t": 3, "fisher": "batch"}, {"rwalk_lambda": 0.0}),
    Case("scp", SCPPlugin, {"scp_lambda": 2.0}, {"scp_lambda": 0.0}),
    Case("scp-sliced", SCPPlugin, {"scp_lambda": 2.0, "mode": "sliced", "slices": 20}, {"scp_lambda": 0.0}),
    Case("scp-minibatch", SCPPlugin, {"scp_lambda": 2.0, "mode": "minibatch", "init": "first"}, {"scp_lambda": 0.0}),
    Case("si", SIPlugin, {"si_lambda": 5.0}, {"si_lambda": 0.0}, copies=5.0),
    Case("ewc", EWCPlugin, {"ewc_lambda": 5.0}, {"ewc_lambda": 0.0}, copies=3.0),
    Case(
        "ewc-online",
        EWCPlugin,
        {"ewc_lambda": 5.0, "mode": "online", "gamma": 0.7, "fisher": "sampled", "n_samples": 9, "normalise": "max"},
        {"ewc_lambda": 0.0},
        copies=3.0,
    ),
    Case(
        "ewc-batch",
        EWCPlugin,
        {"ewc_lambda": 5.0, "fisher": "batch", "normalise": "max"},
        {"ewc_lambda": 0.0},
        copies=3.0,
    ),
    Case("l2", L2Plugin, {"l2_lambda": 0.5}, {"l2_lambda": 0.0}, copies=3.0),
    Case("mas", MASPlugin, {"mas_lambda": 0.02}, {"mas_lambda": 0.0}, copies=4.0),
    Case(
        "mas-mean-all",
        MASPlugin,
        {"mas_lambda": 0.02, "accumulate": "mean", "outputs": "all"},
        {"mas_lambda": 0.0},
        copies=4.0,
    ),
    Case("gem", GEMPlugin, {"mem_size": 12}, {"mem_size": 0}),
    Case("agem", AGEMPlugin, {"mem_size": 12, "mem_batch_size": 8}, {"mem_size": 0}),
    Case(
        "pathnet",
        PathNetPlugin,
        {"population": 4, "iterations": 1},
        None,
        copies=1.0,
        prepare=lambda model: pathnet(model, 4, 2),
        kind="nc-tasks",
        refuses=NO_TASK,
    ),
    Case(
        "pathnet-shared-out",
        PathNetPlugin,
        {"population": 3, "generations": 2, "seed": 1},
        None,
        copies=1.0,
        prepare=lambda model: pathnet(model, 5, 2, width=1.0, seed=1),
        kind="nc-tasks",
        refuses=NO_TASK,
    ),
    Case(
        "net2net",
        Net2NetPlugin,
        {"wider": 0.5},
        {"wider": 0.0},
        prepare=growable,
        refuses=NO_GROWTH,
        keeps=False,
    ),
    Case(
        "net2net-deeper",
        Net2NetPlugin,
        {"wider": 0.1, "deeper": 1, "lr_factor": 0.5},
        {"wider": 0.0, "deeper": 0},
        prepare=growable,
        refuses=NO_GROWTH,
        keeps=False,
    ),
    Case(
        "pnn",
        PNNPlugin,
        {},
        {},
        prepare=progressive,
        kind="nc-tasks",
        off_experiences=1,
        result=lambda runner: unowned(runner),
        refuses=NO_COLUMN,
    ),
    Case(
        "pnn-linear",
        PNNPlugin,
        {"adapter": "linear", "seed": 1},
        {},
        prepare=progressive,
        kind="nc-tasks",
        off_experiences=1,
        result=lambda runner: unowned(runner),
        refuses=NO_COLUMN,
    ),
    Case(
        "expert-gate",
        ExpertGatePlugin,
        {"code_size": 3, "gate_epochs": 2, "gate_batch_size": 8},
        {},
        copies=5.0,
        prepare=experts,
        off_experiences=1,
        result=lambda runner: ungated(runner),
        refuses=NO_EXPERT,
    ),
    Case(
        "expert-gate-lwf",
        ExpertGatePlugin,
        {"threshold": -1000.0, "code_size": 2, "gate_epochs": 2, "temperature": 1.0, "seed": 1},
        {},
        copies=5.0,
        prepare=experts,
        off_experiences=1,
        result=lambda runner: ungated(runner),
        refuses=NO_EXPERT,
    ),
    Case("er", ERPlugin, {"mem_size": 12, "mem_batch_size": 8}, {"mem_size": 0}),
    Case("er-balanced", ERPlugin, {"mem_size": 12, "mem_batch_size": 8, "policy": "class_balanced"}, {"mem_size": 0}),
    Case("der", DERPlugin, {"alpha": 0.5, "mem_size": 12, "mem_batch_size": 8}, {"alpha": 0.0}),
    Case(
        "derpp",
        DERPlugin,
        {"alpha": 0.5, "beta": 0.5, "mem_size": 12, "mem_batch_size": 8, "policy": "ring"},
        {"mem_size": 0},
    ),
    Case(
        "clser",
        CLSERPlugin,
        {"clser_lambda": 1.0, "mem_size": 12, "mem_batch_size": 8, "stable_alpha": 0.95, "plastic_alpha": 0.9},
        {"mem_size": 0},
        copies=4.0,
    ),
    Case(
        "clser-ema-second",
        CLSERPlugin,
        {"clser_lambda": 1.0, "mem_size": 12, "stable_rate": 0.3, "bn": "ema", "shared_forward": False},
        {"mem_size": 0},
        copies=4.0,
    ),
    Case(
        "generative-replay",
        GenerativeReplayPlugin,
        {"generator_iterations": 4, "latent": 2, "hidden": (5,)},
        {"r": 1.0},
        copies=3.0,
    ),
    Case(
        "generative-replay-soft",
        GenerativeReplayPlugin,
        {"r": 0.3, "labels": "soft", "generator_epochs": 1, "replay_batch_size": 5, "latent": 2, "hidden": (4,)},
        {"r": 1.0},
        copies=3.0,
    ),
    Case(
        "sim-ema",
        SimEMAPlugin,
        {
            "sim_ema_lambda": 1.0,
            "mem_size": 12,
            "mem_batch_size": 8,
            "phi": "const",
            "alpha": 0.9,
            "stable_alpha": 0.95,
            "rate_min": 0.3,
            "max_groups": 2,
        },
        {"mem_size": 0},
        copies=8.0,
    ),
    Case(
        "sim-ema-fisher",
        SimEMAPlugin,
        {
            "sim_ema_lambda": 1.0,
            "mem_size": 12,
            "similarity": "fisher",
            "phi": "inverse",
            "tau_join": 0.9,
            "alpha": 0.9,
            "stable_alpha": 0.95,
            "max_groups": 3,
            "teacher": "best",
            "eval_model": "ensemble",
            "bn": "copy",
        },
        {"mem_size": 0},
        copies=10.0,
    ),
    Case(
        "sim-ema-correlation",
        SimEMAPlugin,
        {
            "sim_ema_lambda": 1.0,
            "mem_size": 12,
            "mem_batch_size": 8,
            "similarity": "correlation",
            "tau_join": 0.8,
            "alpha": 0.9,
            "n_signature": 15,
            "eval_model": "mean_weights",
            "policy": "class_balanced",
        },
        {"mem_size": 0},
        copies=12.0,
    ),
    Case("lwf", LwFPlugin, {"lwf_lambda": 2.0}, {"lwf_lambda": 0.0}, copies=1.0),
    Case(
        "ogd",
        OGDPlugin,
        {"n_samples": 2, "variant": "all", "max_directions": 60, "seed": 1},
        {"n_samples": 0},
        copies=50.0,
    ),
    Case(
        "ogd-ema",
        EMAOGDPlugin,
        {"n_samples": 3, "plastic_alpha": 0.5, "stable_alpha": 0.9, "plastic_rate": 0.6, "stable_rate": 0.4, "seed": 1},
        {"n_samples": 0},
        copies=30.0,
    ),
    Case(
        "ogd-ema-noise",
        EMAOGDPlugin,
        {"n_samples": 3, "points": "noise", "basis": "explicit", "stable_alpha": 0.9},
        {"n_samples": 0},
        copies=45.0,
    ),
    Case("ogd-explicit", OGDPlugin, {"n_samples": 9, "basis": "explicit"}, {"n_samples": 0}, copies=40.0),
    Case(
        "ebll",
        EBLLPlugin,
        {"ebll_lambda": 2.0, "code_size": 4, "ae_lr": 1.0, "ae_epochs": 2, "ae_batch_size": 8},
        {"ebll_lambda": 0.0, "lwf_lambda": 0.0},
        copies=3.0,
    ),
    Case(
        "dualnet",
        DualNetPlugin,
        DUALNET,
        {"n_outer": 0, "mem_size": 0, "fast_steps": 1},
        copies=5.0,
        prepare=lambda model: slow_fast(model),
        refuses={"MultiHead": "MultiHead is not"},
    ),
    Case(
        "dualnet-code-aware",
        DualNetPlugin,
        DUALNET | {"mem_size": 5, "task_aware": True, "preset": "code", "beta": 0.3},
        {"n_outer": 0, "mem_size": 0, "fast_steps": 1},
        copies=5.0,
        prepare=lambda model: slow_fast(model),
        refuses={"MultiHead": "MultiHead is not"},
    ),
    Case(
        "dualnet-features",
        DualNetPlugin,
        DUALNET | {"feature_lambda": 2.0, "feature_decay": 0.9, "consolidation": "invariance"},
        {"n_outer": 0, "mem_size": 0, "fast_steps": 1, "feature_lambda": 0.0, "consolidation": "constant"},
        copies=7.0,
        prepare=lambda model: slow_fast(model),
        refuses={"MultiHead": "MultiHead is not"},
    ),
    Case(
        "packnet",
        PackNetPlugin,
        {"prune": (0.5, 0.6), "retrain_epochs": 1},
        {"prune": 0.0},
        copies=4.0,
        prepare=expandable,
        kind="nc-tasks",
        off_experiences=1,
        result=lambda runner: unschemed(runner),
        refuses=NO_TASK | {"frozen": "no trainable parameters"},
    ),
    Case(
        "packnet-frozen",
        PackNetPlugin,
        {"prune": "equal", "tasks": EXPERIENCES, "retrain_epochs": 1, "biases": "frozen", "norm": "frozen"},
        {"prune": 0.0},
        copies=4.0,
        prepare=expandable,
        kind="nc-tasks",
        off_experiences=1,
        result=lambda runner: unschemed(runner),
        refuses=NO_TASK | {"frozen": "no trainable parameters"},
    ),
    Case(
        "cpg",
        CPGPlugin,
        CPG | {"goal": 2.0, "tolerance": 0.1, "max_width": 2.0},
        KEEP_ALL,
        copies=12.0,
        prepare=expandable,
        kind="nc-tasks",
        off_experiences=1,
        result=lambda runner: unschemed(runner),
        refuses=NO_TASK | {"frozen": "no trainable parameters"},
    ),
    Case(
        "pae",
        CPGPlugin,
        CPG | {"max_width": 1.0, "picking": False, "seed": 3},
        KEEP_ALL,
        copies=8.0,
        prepare=expandable,
        kind="nc-tasks",
        off_experiences=1,
        result=lambda runner: unschemed(runner),
        refuses=NO_TASK | {"frozen": "no trainable parameters"},
    ),
    Case("mas-local", LocalMASPlugin, {"mas_lambda": 0.02}, {"mas_lambda": 0.0}, copies=4.0),
    Case("imm-mean", IMMPlugin, {}, {"alpha": 1.0}, copies=3.0, result=lambda runner: merged(runner)),
    Case(
        "imm-mode",
        IMMPlugin,
        {"merge": "mode", "alpha": 0.4, "l2_lambda": 0.05, "drop_keep": 0.7, "fisher": "sampled", "n_samples": 12},
        {"alpha": 1.0, "l2_lambda": 0.0, "drop_keep": 1.0},
        copies=7.0,
        result=lambda runner: merged(runner),
    ),
]
QUADRATIC = [case for case in CASES if issubclass(case.make, QuadraticPenaltyPlugin)]


def labelled(x: Tensor, y: Tensor) -> Dataset[Any]:
    """Returns a dataset of (x, y) with the `targets` that Avalanche asks for."""
    dataset = TensorDataset(x, y)
    dataset.targets = y.tolist()
    return dataset


def blobs(per_class: int, seed: int) -> Dataset[Any]:
    """Returns Gaussian blobs, one a class, in class order."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(99)) * 2
    y = torch.arange(CLASSES).repeat_interleave(per_class)
    return labelled(centres[y] + torch.randn(len(y), FEATURES, generator=generator), y)


def benchmark(kind: str = "nc", per_class: int = 10) -> Any:
    """Returns a stream: "nc" without and "nc-tasks" with task labels, or the new-style "ci" whose samples have none."""
    train, test = blobs(per_class, 1), blobs(4, 2)
    if kind == "ci":
        datasets = {"train": as_classification_dataset(train), "test": as_classification_dataset(test)}
        return class_incremental_benchmark(datasets, num_experiences=EXPERIENCES, class_order=list(range(CLASSES)))
    return nc_benchmark(train, test, EXPERIENCES, task_labels=kind == "nc-tasks", shuffle=False)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(inplace=True), nn.Linear(16, CLASSES))


def normed() -> nn.Module:
    """Batch norm and dropout."""
    layers = nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, CLASSES)
    return nn.Sequential(*layers)


class Growing(nn.Module):
    """A head that grows with the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU())
        self.head = IncrementalClassifier(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


class MultiHead(MultiTaskModule):
    """A head a task."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU())
        self.heads = MultiHeadClassifier(16)

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        return self.heads(self.trunk(x), task_labels)


def layer(model: nn.Module, kind: type[nn.Module]) -> Any:
    """Returns a network's first module of a kind."""
    return next(module for module in model.modules() if isinstance(module, kind))


def slow_fast(model: nn.Module) -> nn.Module:
    """Returns the slow/fast pair whose slow net is an ordinary network."""
    if isinstance(model, nn.Sequential):
        model = Network(model[:-1], model[-1])
    elif isinstance(model, Growing):
        model = Network(model.trunk, model.head)
    return dualnet(model, (FEATURES,))


class QuietNaive(Naive):
    """Naive whose evaluation leaves the random state alone, as the project's recorder does."""

    def eval(self, exp_list: Any, **kwargs: Any) -> Any:
        with preserved_random_state():
            return super().eval(exp_list, **kwargs)


def strategy(model: nn.Module, plugins: list[Any], **options: Any) -> Naive:
    """Returns Naive with momentum SGD on two epochs of batches of 7."""
    arguments = {"train_mb_size": 7, "train_epochs": 2, "eval_mb_size": 64, "criterion": nn.CrossEntropyLoss()}
    arguments |= {"optimizer": torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)}
    arguments |= {"evaluator": EvaluationPlugin()} | options
    return QuietNaive(model=model, plugins=plugins, **arguments)


def train(runner: Naive, stream: Any, first: int = 0, after: Callable[[], None] = lambda: None) -> None:
    """Trains on each experience from a seed of its own, so that a run can be cut in two."""
    for number, experience in enumerate(stream):
        if number >= first:
            torch.manual_seed(number)
            runner.train(experience, eval_streams=[[experience]])
            after()


def run(
    plugins: list[Any], network: Callable[[], nn.Module] = mlp, kind: str = "nc", experiences: int = EXPERIENCES,
    **options: Any,
) -> Naive:  # fmt: skip
    """Returns a strategy trained on the whole stream, or on its first experiences."""
    torch.manual_seed(0)
    runner = strategy(network(), plugins, **options)
    train(runner, benchmark(kind).train_stream[:experiences])
    return runner


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def merged(runner: Naive) -> dict[str, Tensor]:
    """The weights with which IMM predicts."""
    plugin = next(plugin for plugin in runner.plugins if isinstance(plugin, IMMPlugin))
    return weights(plugin.merged_network(runner.model))


def unschemed(runner: Naive) -> dict[str, Tensor]:
    """The weights that tasks share, and the heads, of an expandable network, without how each task reads them."""
    model = copy.deepcopy(runner.model)
    model.scheme = Scheme()
    return weights(model)


def unowned(runner: Naive) -> dict[str, Tensor]:
    """The weights of a progressive network, without which task has which column."""
    model = copy.deepcopy(runner.model)
    model.owners = []
    return weights(model)


def ungated(runner: Naive) -> dict[str, Tensor]:
    """The experts' weights, without the gate."""
    model = copy.deepcopy(runner.model)
    model.known, model.gate = Shelf(), TaskGate()
    return weights(model)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def resume(folder: Path) -> None:
    """Goes on from what the test saved after two experiences of four, and saves the weights."""
    torch.set_num_threads(1)
    for case in CASES:
        state = torch.load(folder / f"{case.name}.pt", weights_only=True)
        model, plugin = case.on(mlp)(), case()
        model.load_state_dict(state["model"])  # first: a network that grew takes its sizes from the state
        runner = strategy(model, [plugin])
        runner.make_optimizer(reset_optimizer_state=True)  # Avalanche's first call would wipe a loaded state
        runner.optimizer.load_state_dict(state["optimizer"])
        plugin.load_state_dict(state["plugin"])
        train(runner, benchmark(case.kind).train_stream, first=2)
        torch.save(case.result(runner), folder / f"{case.name}.resumed.pt")


if __name__ == "__main__":
    resume(Path(sys.argv[1]))
