"""Ordinary networks taken apart: features, and the linear classifier that reads them."""

import copy
import operator
from collections import OrderedDict
from typing import Any

from cl_ext.nn.chain import check_layers, is_sequence

import torch
from torch import fx, nn

FORM = "an nn.Sequential that ends in a linear layer, or a network with `features` and a linear `classifier`"
_SIZES = {"size", getattr, operator.getitem, len}
"""What asks for sizes, for `x.view(x.size(0), -1)`: it changes no sample."""


def parts(model: nn.Module, taker: str) -> tuple[Any, nn.Linear]:
    """Copies of an ordinary network's features and of its linear classifier.

    Where the network flattens before or after its features, as Avalanche's `SimpleMLP` does, `nn.Flatten` is put there.

    Args:
        model: An `nn.Sequential` that ends in a linear layer, or a network with `features` and a linear `classifier`
            that does nothing else than `classifier(features(x))`, but for flattening.
        taker: Who takes it, for the error.

    Raises:
        TypeError: It is neither, or has layers that are not PyTorch's own; the sentence says what is allowed.
    """
    if is_sequence(model) and len(model) > 1:
        features, classifier = split(model)
        before = after = False
    elif hasattr(model, "features") and hasattr(model, "classifier"):
        features, classifier = model.features, model.classifier
        before, after = flattening(model, taker)
    else:
        own = " with a forward of its own" if isinstance(model, nn.Sequential) and len(model) > 1 else ""
        raise TypeError(f"{taker} takes {FORM}, not a {type(model).__name__}{own}")
    if type(classifier) is not nn.Linear:
        raise TypeError(
            f"{taker} needs a linear classifier of a fixed size, to make each task's head of; it is a "
            f"{type(classifier).__name__}"
        )
    try:
        check_layers([*features.named_modules(remove_duplicate=False), ("the classifier", classifier)])
    except TypeError as error:
        raise TypeError(f"{taker}: {error}") from None
    features, classifier = copy.deepcopy(features), copy.deepcopy(classifier)
    around = [*([nn.Flatten()] if before else []), features, *([nn.Flatten()] if after else [])]
    return nn.Sequential(*around) if len(around) > 1 else features, classifier


def split(model: nn.Sequential) -> tuple[Any, Any]:
    """A sequence without its last module, under the same names, and the last one; nothing is copied."""
    *hidden, (_, last) = model._modules.items()
    return nn.Sequential(OrderedDict(hidden)), last


def flattening(model: nn.Module, taker: str) -> tuple[bool, bool]:
    """Whether a network flattens samples before its features, and features before its classifier.

    Args:
        model: Has `features` and `classifier`; its `forward` is followed step by step, without samples.
        taker: Who asks, for the error.

    Raises:
        TypeError: It does something else than `classifier(features(x))`, or cannot be followed.
    """
    try:
        steps = _Tracer().trace(model)
    except Exception as error:
        raise TypeError(f"{taker} takes {FORM}; what the forward of {type(model).__name__} does cannot be followed "
                        f"({error})") from error  # fmt: skip
    found: list[str] = []
    for node in _main_line(steps):
        if node.op == "call_module":
            found.append(str(node.target))
        elif _flattens(node, "features" in found):
            found.append("flatten")
        elif node.target != "contiguous":
            step = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
            raise TypeError(f"{taker} takes {FORM}; the forward of {type(model).__name__} does more than "
                            f"classifier(features(x)): {step}")  # fmt: skip
    bare = [step for step in found if step != "flatten"]
    if bare != ["features", "classifier"] or found[-1] != "classifier":
        raise TypeError(f"{taker} takes {FORM}; the forward of {type(model).__name__} runs {' -> '.join(found)}")
    middle = found.index("features")
    return "flatten" in found[:middle], "flatten" in found[middle:]


class _Tracer(fx.Tracer):
    """Records the steps of a network's own forward; what its modules do inside is theirs."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _main_line(steps: fx.Graph) -> list[fx.Node]:
    """The steps from the samples to the logits, in order; those that only ask for sizes are left out.

    Raises:
        TypeError: A step reads the results of several, such as a sum.
    """
    (out,) = next(node for node in steps.nodes if node.op == "output").args
    line: list[fx.Node] = []
    node = out
    while isinstance(node, fx.Node) and node.op != "placeholder":
        line.append(node)
        read = [other for other in node.all_input_nodes if not _is_size(other)]
        node = read[0] if len(read) == 1 else None
    return line[::-1]


def _flattens(node: fx.Node, features: bool) -> bool:
    """Whether a step makes `(B, ...)` into `(B, D)`; only features, (B, D, 1, 1) then, can be squeezed into that."""
    (_, *sizes), options = node.args, node.kwargs
    if node.target in (torch.flatten, "flatten"):
        return [*sizes, *options.values()] == [1]
    if node.target in ("view", "reshape"):
        shape = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
        return len(shape) == 2 and not options
    return node.target == "squeeze" and features and not sizes and not options


def _is_size(node: fx.Node) -> bool:
    return node.op.startswith("call") and node.target in _SIZES
