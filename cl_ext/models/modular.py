"""An ordinary chain of layers made into layers of modules, for PathNet."""

import copy
from collections.abc import Sequence

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.models.ordinary import parts
from cl_ext.nn.chain import Stage, chain, leaves
from cl_ext.nn.growth import drawn
from cl_ext.nn.paths import PathFeatures, PathModule
from cl_ext.nn.resizing import note_sizes

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def pathnet(
    model: nn.Module, modules: int = 10, active: int = 3, width: float | None = None, seed: int = 0
) -> ExpandableNetwork:
    """Makes each hidden layer of an ordinary network into modules whose outputs are summed.

    Args:
        model: An `nn.Sequential` that ends in a linear classifier, or a network with `features`, a chain of layers, and
            a linear `classifier`. It is copied.
        modules: M, in each layer.
        active: N, of them in a path.
        width: A module's share of the units of its layer, in (0, 1]; None for 1 / N, so that the active modules have
            as many units as the layer.
        seed: Draws the weights, as PyTorch's layers begin. With `width` 1 the first module of each layer and the heads
            begin as the network's own layer and classifier: with one module it is the network.

    Returns:
        A network whose `forward(x, task_labels)` gives logits over global class ids; `PathNetPlugin` trains it.

    Raises:
        TypeError: The network is no chain of layers; the sentence says what is.
        ValueError: A number is out of its range.
    """
    if modules < 1 or not 1 <= active <= modules:
        raise ValueError(f"pathnet takes modules >= 1 and active from 1 to modules, got {modules} and {active}")
    share = 1 / active if width is None else width
    if not 0 < share <= 1:
        raise ValueError(f"pathnet takes a width in (0, 1], got {width}")
    features, classifier = parts(model, "pathnet")
    stages = chain(features, classifier.in_features)
    generator = torch.Generator().manual_seed(seed)
    names = [name for name, _ in leaves(features)]
    stem = [module for _, module in leaves(features)][: names.index(stages[0].name)]
    layers, inputs = [], stages[0].layer.weight.shape[1]
    for stage in stages:
        units = max(1, round(stage.units * share))
        layers.append(_layer(stage, units, inputs, modules, generator))
        inputs = units * stage.block
    return ExpandableNetwork(PathFeatures(stem, layers, active), _classifier(classifier, inputs, generator))


def _layer(stage: Stage, units: int, inputs: int, modules: int, generator: torch.Generator) -> Sequence[PathModule]:
    """The modules of a layer; the first is a copy of the layer where the sizes are the same."""
    old = stage.layer.weight
    made = []
    for number in range(modules):
        module = PathModule(*copy.deepcopy([stage.layer, *(after for _, after in stage.after)]))
        if number or old.shape[:2] != (units, inputs):
            for part in module:
                _resize(part, units, inputs)
            module.redraw(generator)
        made.append(module)
    return made


def _resize(module: nn.Module, units: int, inputs: int) -> None:
    """Gives a layer, or batch norm, tensors of another size; their values are to be drawn."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        module.weight = nn.Parameter(module.weight.new_zeros(units, inputs, *module.weight.shape[2:]))
        if module.bias is not None:
            module.bias = nn.Parameter(module.bias.new_zeros(units))
    elif isinstance(module, _BatchNorm):
        for name, value in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(value.new_zeros(units)))
        for name in ("running_mean", "running_var"):
            if getattr(module, name) is not None:
                setattr(module, name, getattr(module, name).new_zeros(units))
    note_sizes(module)


def _classifier(classifier: nn.Linear, inputs: int, generator: torch.Generator) -> nn.Linear:
    """The template of the heads: the classifier, or one that is drawn where the features have another width."""
    if classifier.in_features == inputs:
        return classifier
    made = copy.deepcopy(classifier)
    weight = drawn((classifier.out_features, inputs), inputs, classifier.weight, generator)
    made.weight = nn.Parameter(weight)
    if classifier.bias is not None:
        made.bias = nn.Parameter(drawn((classifier.out_features,), inputs, classifier.bias, generator))
    note_sizes(made)
    return made
