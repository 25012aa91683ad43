"""Net2Net (Chen, Goodfellow & Shlens, ICLR 2016): a wider or a deeper network that computes the same function.

Symbols: `g` (m,) which old unit each of the m units is, `n` the old number of units, `U` the weights that read them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cl_ext.nn.chain import ELEMENTWISE, Stage
from cl_ext.nn.growth import readers
from cl_ext.nn.resizing import Layer, select_inputs, select_norm, select_outputs

import torch
from torch import Tensor, nn

IDEMPOTENT = (nn.ReLU, nn.Identity)
"""Activations with f(f(x)) = f(x)."""
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)


@dataclass(frozen=True)
class UnitGroup:
    """Units that one mapping serves: those of a layer, or of all layers whose outputs are added up.

    Attributes:
        name: the path of the first maker.
        makers: the layers that make the units.
        norms: the batch norms over them.
        readers: the layers that read them, each with its columns a unit (positions of a channel that is flattened).
    """

    name: str
    makers: tuple[Layer, ...]
    norms: tuple[nn.Module, ...]
    readers: tuple[tuple[nn.Module, int], ...]

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.makers[0].weight.shape[0]

    @property
    def modules(self) -> list[nn.Module]:
        """All that another number of units changes."""
        return [*self.makers, *self.norms, *(reader for reader, _ in self.readers)]


def group_of(stages: Sequence[Stage], index: int, last: Sequence[nn.Module] = ()) -> UnitGroup:
    """The units of one stage of a chain; `last` are the classifiers, which read the last stage."""
    stage = stages[index]
    norms = () if stage.norm is None else (stage.norm[1],)
    return UnitGroup(
        stage.name, (stage.layer,), norms, tuple((each, stage.block) for each in readers(stages, index, last))
    )


def draw_mapping(n: int, m: int, generator: torch.Generator) -> Tensor:
    """Returns g: the n old units in their places, and m - n draws of them, uniform and with repetition.

    Args:
        n: units, at least 1.
        m: units to come, at least n.
        generator: on the CPU.

    Raises:
        ValueError: m is smaller than n.
    """
    if m < n:
        raise ValueError(f"a wider layer has at least its {n} units; {m} are fewer")
    return torch.cat([torch.arange(n), torch.randint(n, (m - n,), generator=generator)])


def multiplicities(g: Tensor, n: int) -> Tensor:
    """Returns, for each of the m units, how many have the same origin: |{x : g(x) = g(j)}|, (m,)."""
    return torch.bincount(g, minlength=n)[g]


@torch.no_grad()
def widen(group: UnitGroup, g: Tensor, noise: float = 0.0, generator: torch.Generator | None = None) -> None:
    """Net2WiderNet, in place: unit j becomes a copy of unit g(j), and what reads it is divided by the copies.

        W'[j] = W[g(j)],   b'[j] = b[g(j)],   U'[:, j] = U[:, g(j)] / |{x : g(x) = g(j)}|

    Batch norm is copied with its statistics, which leaves it right in train mode, too. Without noise the function
    stays, up to rounding, and copies get equal gradients: they stay copies until something (dropout, noise) tells them
    apart.

    Args:
        group: the units.
        g: (m,), the old units first, in their places.
        noise: standard deviation of what is added to the incoming weights of the copies alone, in that of the layer's
            weights; the function is then kept approximately.
        generator: of the noise, on the CPU.
    """
    n, g = group.units, g.to(group.makers[0].weight.device)
    scale = 1.0 / multiplicities(g, n).to(group.makers[0].weight)
    for reader, block in group.readers:
        select_inputs(reader, g, block)
        weight: Tensor = reader.weight  # type: ignore[assignment]
        columns = scale if block == 1 else scale.repeat_interleave(block)
        weight.mul_(columns.view(1, -1, *[1] * (weight.dim() - 2)))
    for maker in group.makers:
        spread = float(maker.weight.std(correction=0)) * noise
        select_outputs(maker, g)
        if noise > 0.0:
            shape = (len(g) - n, *maker.weight.shape[1:])
            maker.weight[n:] += torch.randn(shape, generator=generator, dtype=torch.float64).to(maker.weight) * spread
    for norm in group.norms:
        select_norm(norm, g)


def place_behind(stage: Stage) -> tuple[str, nn.Module]:
    """Where an identity layer can stand: behind the stage's activation; gives the path, and a fresh activation.

    Raises:
        TypeError: the activation is not idempotent, so that f(I f(x)) is not f(x), or values are flattened before it.
    """
    place = stage.name
    activation: nn.Module = nn.Identity()
    flat = False
    for name, module in stage.after:
        if isinstance(module, ELEMENTWISE) and not isinstance(module, _DROPOUT):
            if not isinstance(module, IDEMPOTENT):
                raise TypeError(
                    f"Net2DeeperNet needs an activation with f(f(x)) = f(x), such as ReLU; {name!r} is a "
                    f"{type(module).__name__}"
                )
            if flat:
                raise TypeError(f"Net2DeeperNet: {name!r} stands behind a flattening, where no convolution fits")
            place, activation = name, type(module)()
        elif stage.norm is not None and name == stage.norm[0]:
            place = name
        flat = flat or isinstance(module, nn.Flatten)
    return place, activation


@torch.no_grad()
def identity_layer(stage: Stage, kernel: int = 3) -> Layer:
    """A layer of as many units as the stage has that gives what it is given.

    Args:
        stage: says kind, size, type and place.
        kernel: the side of a convolution's kernel; odd, for a centre.

    Raises:
        ValueError: the kernel's side is even.
    """
    n, like = stage.units, stage.layer.weight
    if isinstance(stage.layer, nn.Conv2d):
        if kernel % 2 == 0:
            raise ValueError(f"an identity kernel needs a centre, hence an odd side, not {kernel}")
        layer: Layer = nn.utils.skip_init(nn.Conv2d, n, n, kernel, padding=kernel // 2)
        nn.init.zeros_(layer.weight)
        layer.weight[:, :, kernel // 2, kernel // 2] = torch.eye(n)
    else:
        layer = nn.utils.skip_init(nn.Linear, n, n)
        layer.weight.copy_(torch.eye(n))
    assert layer.bias is not None  # made with one
    nn.init.zeros_(layer.bias)
    return layer.to(like)


@torch.no_grad()
def identity_norm(like: nn.Module, mean: Tensor, variance: Tensor) -> nn.Module:
    """A batch norm that gives what it is given, in eval mode, and in train mode on data of these statistics.

    Args:
        like: batch norm of n channels.
        mean: (n,).
        variance: (n,), divided by the number of values.
    """
    norm: Any = type(like)(len(mean), eps=like.eps, momentum=like.momentum).to(mean)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean)
    made: nn.Module = norm.train(like.training)
    return made


def deepen(
    root: nn.Sequential,
    stage: Stage,
    label: int,
    kernel: int = 3,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> nn.Sequential:
    """Net2DeeperNet, in place: an identity layer with the stage's activation behind that activation.

    The new part is one module, (layer, batch norm where the stage has one, activation), under a name of its own; all
    other modules keep theirs. Behind a dropout of the stage nothing changes: the new part stands before it.

    Args:
        root: the network, in which the stage's paths hold.
        stage: whose units go through the new layer.
        label: a number that no earlier one had; it is part of the name.
        kernel: the side of a convolution's kernel.
        statistics: mean and variance of what the stage gives, (n,) each; needed where it has batch norm.

    Raises:
        TypeError: the activation is not idempotent.
        ValueError: the kernel has no centre, or statistics are missing.
    """
    path, activation = place_behind(stage)
    parts: list[nn.Module] = [identity_layer(stage, kernel)]
    if stage.norm is not None:
        if statistics is None:
            raise ValueError("an identity behind batch norm needs the mean and variance of what it is given")
        parts.append(identity_norm(stage.norm[1], *statistics))
    new = nn.Sequential(*parts, activation)
    for module in new.modules():
        module.training = stage.layer.training
    insert_behind(root, path, label, new)
    return new


def insert_behind(root: nn.Sequential, path: str, label: int, new: nn.Module) -> None:
    """Puts a module behind the one at `path`, in the same sequence, under the name that `inserted` knows."""
    parent, _, name = path.rpartition(".")
    sequence = root.get_submodule(parent)
    modules = list(sequence._modules.items())
    at = [key for key, _ in modules].index(name) + 1
    sequence._modules.clear()
    for key, module in [*modules[:at], (inserted_name(name, label), new), *modules[at:]]:
        sequence.add_module(key, module)


_MARK = "+deeper"


def inserted_name(path: str, label: int) -> str:
    """The path of what `insert_behind` puts behind the module at `path`."""
    return f"{path}{_MARK}{label}"


def inserted(names: Sequence[str]) -> list[tuple[int, str]]:
    """What `insert_behind` has put into a network, in the order of its labels.

    Args:
        names: of the network's tensors.

    Returns:
        The label, and the path of the module behind which it was put.
    """
    found = set()
    for name in names:
        parts = name.split(".")
        for index, part in enumerate(parts):
            behind, mark, label = part.rpartition(_MARK)
            if mark:
                found.add((int(label), ".".join([*parts[:index], behind])))
    return sorted(found)
