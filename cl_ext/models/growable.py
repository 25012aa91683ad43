"""Ordinary networks that Net2Net can make wider and deeper: what is one unit in them, and how a grown one is loaded."""

from collections.abc import Mapping
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.models.networks import BasicBlock
from cl_ext.models.ordinary import flattening, split
from cl_ext.nn.chain import Stage, chain, is_sequence
from cl_ext.nn.net2net import (
    UnitGroup,
    group_of,
    identity_layer,
    identity_norm,
    insert_behind,
    inserted,
    inserted_name,
    place_behind,
)
from cl_ext.nn.resizing import fit_shapes

import torch
from avalanche.models import IncrementalClassifier
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Body:
    """A network as Net2Net sees it: a sequence of hidden layers and one classifier for all tasks.

    Attributes:
        root: in which the paths of layers hold.
        hidden: the hidden layers, a sequence.
        classifier: the linear layer that reads the last of them.
    """

    def __init__(self, model: nn.Module) -> None:
        """Looks at a network; nothing is copied.

        Args:
            model: an `nn.Sequential` that ends in a linear layer, or a network with `features`, an `nn.Sequential`,
                and a `classifier`, linear or Avalanche's `IncrementalClassifier`.

        Raises:
            TypeError: it is neither, or does more than `classifier(features(x))`; the sentence says what is allowed.
        """
        root: Any
        hidden: Any
        if is_sequence(model) and len(model) > 1:
            root, (hidden, head) = model, split(model)
        else:
            root = hidden = getattr(model, "features", None)
            head = getattr(model, "classifier", None)
        head = head.classifier if isinstance(head, IncrementalClassifier) else head
        if not isinstance(hidden, nn.Sequential) or not isinstance(head, nn.Linear):
            raise TypeError(
                "Net2Net takes an nn.Sequential that ends in a linear layer, or a network with `features`, an "
                f"nn.Sequential, and a linear or incremental `classifier`; this is a {type(model).__name__}"
            )
        if root is not model:
            flattening(model, "Net2Net")
        self.root, self.hidden, self.classifier = root, hidden, head
        self.residual = any(isinstance(module, BasicBlock) for module in hidden)

    @property
    def stages(self) -> list[Stage]:
        """The hidden layers of a chain.

        Raises:
            TypeError: the network is no chain of layers.
        """
        return chain(self.hidden, self.classifier.in_features)

    @property
    def groups(self) -> list[UnitGroup]:
        """The units, as one mapping each serves them.

        Raises:
            TypeError: the network is neither a chain of layers nor one with the slim ResNet's blocks.
        """
        if self.residual:
            return residual_groups(self.hidden, self.classifier)
        stages = self.stages
        return [group_of(stages, index, [self.classifier]) for index in range(len(stages))]


def residual_groups(features: nn.Sequential, classifier: nn.Linear) -> list[UnitGroup]:
    """The units of a network with residual blocks: what is added up is one group, what a block has inside another.

    Args:
        features: a convolution, batch norm and blocks in a sequence, averaged over all positions at its end.
        classifier: reads the last block's channels.

    Raises:
        TypeError: something else is in the sequence.
    """
    groups: list[UnitGroup] = []
    stream: tuple[str, list[Any], list[Any], list[Any]] | None = None

    def close(found: tuple[str, list[Any], list[Any], list[Any]]) -> UnitGroup:
        name, makers, norms, readers = found
        return UnitGroup(name, tuple(makers), tuple(norms), tuple((reader, 1) for reader in readers))

    for name, module in features.named_children():
        if isinstance(module, nn.Conv2d) and stream is None:
            stream = name, [module], [], []
        elif isinstance(module, _BatchNorm) and stream is not None:
            stream[2].append(module)
        elif isinstance(module, BasicBlock) and stream is not None:
            stream[3].append(module.conv1)
            groups.append(close((f"{name}.conv1", [module.conv1], [module.bn1], [module.conv2])))
            if len(module.shortcut):
                convolution, norm = module.shortcut[0], module.shortcut[1]
                stream[3].append(convolution)
                groups.append(close(stream))
                stream = f"{name}.conv2", [module.conv2, convolution], [module.bn2, norm], []
            else:
                stream[1].append(module.conv2)
                stream[2].append(module.bn2)
        elif not isinstance(module, nn.ReLU | nn.AdaptiveAvgPool2d | nn.Flatten):
            raise TypeError(f"Net2Net: {name!r}, a {type(module).__name__}, cannot stand among residual blocks")
    assert stream is not None  # there is a block, and only behind a convolution
    stream[3].append(classifier)
    return [*groups, close(stream)]


def growable(model: nn.Module) -> nn.Module:
    """Makes a network load the state of one that Net2Net has made wider or deeper; gives the same network.

    Args:
        model: as `Body` takes it.

    Raises:
        TypeError: it cannot grow.
    """
    _ = Body(model).groups
    model.register_load_state_dict_pre_hook(_fit)
    return model


@torch.no_grad()
def _fit(model: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Puts in the layers that a saved state has more, and takes over its shapes."""
    body = Body(model)
    start = prefix + ("" if body.root is model else "features.")
    names = [name.removeprefix(start) for name in state if name.startswith(start)]
    known = set(inserted([name for name, _ in body.root.named_parameters()]))
    for label, path in inserted(names):
        if (label, path) in known:
            continue
        stage = next(stage for stage in Body(model).stages if place_behind(stage)[0] == path)
        weight = state[f"{start}{inserted_name(path, label)}.0.weight"]
        insert_behind(body.root, path, label, _blank(stage, place_behind(stage)[1], weight.shape[-1]))
    fit_shapes(model, state, prefix)


def _blank(stage: Stage, activation: nn.Module, kernel: int) -> nn.Sequential:
    """Modules like those of `deepen`, for a state to be read into."""
    n = stage.units
    norm = [] if stage.norm is None else [identity_norm(stage.norm[1], torch.zeros(n), torch.ones(n))]
    layer = identity_layer(stage, kernel if isinstance(stage.layer, nn.Conv2d) else 1)
    return nn.Sequential(layer, *norm, activation).to(layer.weight).train(stage.layer.training)
