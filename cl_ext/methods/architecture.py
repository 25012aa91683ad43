"""How this package's architecture methods are built: their own network made of the study's, and one plugin."""

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.methods.avalanche import need_full_head
from cl_ext.methods.context import Built, Context
from cl_ext.models.columns import progressive
from cl_ext.models.expansion import ExpandableNetwork, expandable
from cl_ext.models.expert_network import experts
from cl_ext.models.growable import Body
from cl_ext.models.modular import pathnet as make_pathnet
from cl_ext.nn.lateral import Adapter
from cl_ext.nn.splitting import Outgoing
from cl_ext.nn.task_gate import GateForm
from cl_ext.plugins import (
    CPGPlugin,
    DENPlugin,
    ExpertGatePlugin,
    HATPlugin,
    Net2NetPlugin,
    PackNetPlugin,
    PathNetPlugin,
    PNNPlugin,
)
from cl_ext.plugins.cpg import LADDER
from cl_ext.plugins.hat import TestGates
from cl_ext.plugins.masked import Extra

from avalanche.training.supervised import Naive
from torch import nn


def _expandable(context: Context, name: str) -> ExpandableNetwork:
    """The study's network, expandable, with the initial weights that the seed gives to every row."""
    need_full_head(context, name, "it has a head a task, made of the classifier's rows")
    return expandable(context.model())


def _built(context: Context, model: nn.Module, plugin: object) -> Built:
    """`Naive` with the method's network and plugin; the plugin counts its own bytes."""
    return context.built(Naive(**context.arguments(model, plugin)), plugin)


def den(
    context: Context, mu: float, gamma: float, tau: float, sigma: float, den_lambda: float, k: int, l2: float,
    head_share: float, expand_share: float, drift_share: float, retrain_share: float, iterations: int, expand: bool,
    split: bool, stamp: bool, constant: int, split_outgoing: Outgoing, freeze_restored: bool, max_splits: int,
    eps: float, prox_step: float,
) -> Built:  # fmt: skip
    """Dynamically expandable network; the weights of new units come from a generator of the cell's seed.

    Raises:
        ValueError: The study's network is no chain of layers.
    """
    network = _chain(context, "den", "it adds and splits the units of layers that stand one after another")
    plugin = DENPlugin(
        mu, gamma, tau, sigma, den_lambda, k, l2, head_share, expand_share, drift_share, retrain_share,
        iterations or None, expand, split, stamp, constant, split_outgoing, freeze_restored, max_splits or None, eps,
        prox_step or None, seed=context.key("growth"),
    )  # fmt: skip
    return _built(context, network, plugin)


def hat(context: Context, hat_lambda: float, s_max: float, gates: TestGates, embedding_lr: float) -> Built:
    """Hard attention to the task; the embeddings come from a generator of the cell's seed.

    Raises:
        ValueError: The study's network is no chain of layers.
    """
    network = _chain(context, "hat", "it gates the units of layers that stand one after another")
    plugin = HATPlugin(hat_lambda, s_max, gates, embedding_lr or None, seed=context.key("gates"))
    return _built(context, network, plugin)


def pathnet(
    context: Context, modules: int, active: int, width: float, population: int, generations: int
) -> Built:  # fmt: skip
    """PathNet on modules made of the study's network; the steps of all evaluations are the study's budget.

    Raises:
        ValueError: The study's network is no chain of layers, or fewer modules than active ones are asked for.
    """
    need_full_head(context, "pathnet", "it has a head a task, made of the classifier's rows")
    modules = modules or max(10, active * context.experiences)
    if active > modules:
        raise ValueError(f"pathnet has at most `modules` active ones in a layer; active is {active}, modules {modules}")
    try:
        network = make_pathnet(context.model(), modules, active, width or None, context.key("modules"))
    except TypeError as error:
        raise ValueError(f"pathnet makes modules of layers that stand one after another: {error}") from error
    plugin = PathNetPlugin(population, generations=generations, seed=context.key("paths"))
    return _built(context, network, plugin)


def _chain(context: Context, name: str, why: str) -> ExpandableNetwork:
    """The study's network, expandable, if it is a chain of layers."""
    network = _expandable(context, name)
    try:
        network.stages  # noqa: B018
    except TypeError as error:
        raise ValueError(f"{name} can't train this network, because {why}: {error}") from error
    return network


def net2net(context: Context, wider: float, deeper: int, noise: float, lr_factor: float) -> Built:
    """Fine-tuning of a network that grows between experiences and goes on computing what it did.

    Raises:
        ValueError: The study's network cannot grow.
    """
    model = context.model()
    try:
        body = Body(model)
        body.stages if deeper else body.groups  # noqa: B018
    except TypeError as error:
        raise ValueError(f"net2net can't let this network grow: {error}") from error
    return _built(context, model, Net2NetPlugin(wider, deeper, noise, lr_factor, seed=context.key("growth")))


def packnet(
    context: Context, shares: str, prune: float, retrain_share: float, retrain_lr_factor: float, biases: Extra,
    norm: Extra,
) -> Built:  # fmt: skip
    """PackNet; both of its phases together take the budget's epochs.

    Raises:
        ValueError: The budget is too short for two phases.
    """
    model = _expandable(context, "packnet")
    epochs = context.budget.epochs
    retrain = 0
    if (prune > 0 or shares == "equal") and retrain_share > 0:
        if epochs < 2:
            raise ValueError(f"packnet prunes and retrains; it needs budget.epochs of at least 2, not {epochs}")
        retrain = min(epochs - 1, max(1, round(retrain_share * epochs)))
    plugin = PackNetPlugin(
        "equal" if shares == "equal" else prune, retrain, retrain_lr_factor, context.experiences, biases, norm
    )
    arguments = context.arguments(model, plugin, train_epochs=epochs - retrain)
    return context.built(Naive(**arguments), plugin)


def cpg(
    context: Context, goal: str, goal_accuracy: float, tolerance: float, max_width: float, train_share: float,
    ladder_share: float, lr_factor: float, train_floor: float, hold_out: float, mask_lr: float | None = None,
) -> Built:  # fmt: skip
    """CPG; its stages together take the budget's epochs, and each growth the first stage's again.

    Raises:
        ValueError: The study's network can't grow, or the budget is too short for three stages.
    """
    name = "pae" if mask_lr is None else "cpg"
    epochs, shares = context.budget.epochs, train_share + ladder_share
    if epochs < 2:
        raise ValueError(f"{name} trains, prunes and trains again; it needs budget.epochs of at least 2, not {epochs}")
    if shares > 1:
        raise ValueError(f"{name}: train_share and ladder_share are shares of the epochs, and together {shares:g}")
    if max_width > 1:
        model = _chain(context, name, "it widens layers that stand one after another; max_width: 1 does not grow")
    else:
        model = _expandable(context, name)
    first = min(epochs - 1, max(1, round(train_share * epochs)))
    ladder = (epochs - first) * ladder_share / (1 - train_share)
    rung = ladder / len(LADDER)
    plugin = CPGPlugin(
        "single_task" if goal == "single_task" else goal_accuracy, tolerance, max_width, prune_epochs=rung / 5,
        recover_epochs=rung * 4 / 5, retrain_epochs=epochs - first - ladder, train_floor=train_floor,
        stop_at_goal=True, picking=mask_lr is not None, mask_lr=mask_lr or 0.0, retrain_mask_lr=(mask_lr or 0.0) / 5,
        lr_factor=lr_factor, hold_out=hold_out, tasks=context.experiences, seed=context.key("decisions"),
    )  # fmt: skip
    return context.built(Naive(**context.arguments(model, plugin, train_epochs=first)), plugin)


def pnn(context: Context, adapter: Adapter) -> Built:
    """Progressive networks; every column begins with the initial weights that the seed gives to every row.

    Raises:
        ValueError: The study's network is no chain of layers.
    """
    need_full_head(context, "pnn", "it has a head a task, made of the classifier's rows")
    try:
        model = progressive(context.model())
    except TypeError as error:
        raise ValueError(f"pnn can't make columns of this network: {error}") from error
    return _built(context, model, PNNPlugin(adapter, seed=context.key("laterals")))


def expert_gate(
    context: Context, threshold: float, lwf_lambda: float, temperature: float, form: GateForm, code_size: int,
    gate_epochs: int, gate_lr: float, gate_batch_size: int, by_label: bool = False,
) -> Built:  # fmt: skip
    """Expert Gate: the auto-encoders choose each sample's expert."""
    need_full_head(context, "expert_gate", "each expert has an output for every class from the start")
    plugin = ExpertGatePlugin(
        threshold, lwf_lambda, temperature, code_size, gate_epochs, gate_lr, gate_batch_size, seed=context.key("gate")
    )
    return _built(context, experts(context.model(), form, by_label=by_label), plugin)


def expert_gate_oracle(
    context: Context, threshold: float, lwf_lambda: float, temperature: float, form: GateForm, code_size: int,
    gate_epochs: int, gate_lr: float, gate_batch_size: int,
) -> Built:  # fmt: skip
    """Expert Gate's experts, chosen by the task label."""
    need_full_head(context, "expert_gate_oracle", "each expert has an output for every class from the start")
    return expert_gate(
        context, threshold, lwf_lambda, temperature, form, code_size, gate_epochs, gate_lr, gate_batch_size,
        by_label=True,
    )  # fmt: skip
