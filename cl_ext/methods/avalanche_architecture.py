"""How Avalanche's methods with networks of their own are built: PNN and PackNet."""

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext._avalanche_methods.architecture import FrozenEntries, pack, packed_layers, packed_logits
from cl_ext.methods.avalanche import need_full_head
from cl_ext.methods.context import Built, Context

import torch
from avalanche.models import PNN
from avalanche.models.packnet import PackNetPlugin
from avalanche.training.supervised import Naive, PNNStrategy
from torch import Tensor


def pnn(context: Context, adapter: str) -> Built:
    """Progressive networks: a column an experience, with lateral connections from the frozen ones.

    Raises:
        ValueError: The study's network can't be a column.
    """
    network = context.network
    if network.name != "mlp" or not network.hidden or len(set(network.hidden)) > 1 or not network.bias:
        raise ValueError(
            "pnn_avalanche has columns of equally many units in each hidden layer, with biases; "
            f"it needs such an mlp, and network is {network.to_dict()}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.key("weights"))
        inputs = int(torch.Size(context.input_shape).numel())
        model = PNN(len(network.hidden), inputs, network.hidden[0], adapter=adapter).to(context.device)
    strategy = PNNStrategy(**context.arguments(model))
    columns = model.layers[0].task_to_module_idx

    def logits(x: Tensor, task: int) -> Tensor:
        # Avalanche's own evaluation makes the column of a task that has not begun, which freezes it as it is
        if task not in columns:
            return x.new_full((len(x), context.classes), float("-inf"))
        return context.pad(model.forward_single_task(x, task))

    built = context.built(strategy, extra_bytes=lambda: 0)
    built.logits = logits
    return built


def packnet(context: Context, prune_proportion: float, retrain_share: float) -> Built:
    """PackNet: after each experience a part of the free weights is pruned for later ones, the rest frozen.

    Raises:
        ValueError: The study's network or budget can't be packed.
    """
    epochs = context.budget.epochs
    if epochs < 2:
        raise ValueError(f"packnet_avalanche prunes and retrains; it needs budget.epochs of at least 2, not {epochs}")
    if context.network.name == "resnet18":
        raise ValueError("packnet_avalanche has no batch norm, which resnet18 has; use an mlp or a cnn")
    need_full_head(context, "packnet_avalanche", "it packs layers of a fixed size")
    model = pack(context.model()).to(context.device)
    retrain = min(epochs - 1, max(1, round(retrain_share * epochs)))
    # not Avalanche's PackNet strategy, which puts the list of plugins into the list of plugins: they never run
    strategy = Naive(**context.arguments(model, PackNetPlugin(retrain, prune_proportion), FrozenEntries()))

    def masks() -> int:
        layers = packed_layers(model)
        return sum(m.nbytes for one in layers for m in (one.task_index, one.visible_mask, one.unfrozen_mask))

    built = context.built(strategy, extra_bytes=masks)
    built.logits = lambda x, task: packed_logits(model, x, task)
    return built
