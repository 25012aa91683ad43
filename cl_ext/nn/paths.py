"""Paths through layers of modules (Fernando et al. 2017, PathNet): genotypes, and the network that reads along one.

Symbols as in the paper: L layers of M modules each, at most N of them active in a layer, P genotypes. A genotype, or
path, is an (L, N) tensor of module numbers; a module that it names twice is active once.
"""

from collections.abc import Sequence

from cl_ext.nn.growth import drawn
from cl_ext.nn.scheme import Scheme
from cl_ext.nn.shelf import Shelf
from cl_ext.nn.task_norm import parts_of, rested

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SHIFT = 2
"""The largest step of a mutated gene."""


def random_paths(count: int, layers: int, active: int, modules: int, generator: torch.Generator) -> Tensor:
    """Genotypes (P, L, N), every gene drawn evenly from the M modules."""
    return torch.randint(modules, (count, layers, active), generator=generator)


def mutated(path: Tensor, modules: int, generator: torch.Generator) -> Tensor:
    """A copy of a path (L, N): each gene, with probability 1 / (L N), shifted by -2 to 2 (0 included) modulo M."""
    chosen = torch.rand(path.shape, generator=generator, dtype=torch.float64) < 1 / path.numel()
    shift = torch.randint(-SHIFT, SHIFT + 1, path.shape, generator=generator)
    return torch.where(chosen, (path + shift) % modules, path)


class PathModule(nn.Sequential):
    """One module: a layer and what follows it.

    Attributes:
        resting: It belongs to an earlier task's path: its batch norm reads as in evaluation, in train mode, too.
    """

    resting = False

    def forward(self, h: Tensor) -> Tensor:
        """As the sequence."""
        for module in self:
            if self.resting and isinstance(module, _BatchNorm):
                h = rested(module, h, parts_of(module))
            else:
                h = module(h)
        return h

    def rest(self) -> None:
        """From now on nothing in it is trained."""
        self.resting = True
        self.requires_grad_(False)

    @torch.no_grad()
    def redraw(self, generator: torch.Generator) -> None:
        """Begins anew: weights and biases as PyTorch's layers begin, batch norm as at first; no frozen parameter."""
        for module in self:
            if isinstance(module, nn.Linear | nn.Conv2d):
                for parameter in (module.weight, module.bias):
                    if parameter is not None and parameter.requires_grad:
                        parameter.copy_(drawn(parameter.shape, module.weight[0].numel(), parameter, generator))
            elif isinstance(module, _BatchNorm):
                module.reset_running_stats()
                if module.affine and module.weight.requires_grad:
                    module.reset_parameters()


class PathFeatures(nn.Module):
    """L layers of M modules; a layer's output is the sum of what its active modules give.

    Args:
        stem: what comes before the first layer, without parameters.
        layers: L lists of M modules.
        active: N.
    """

    def __init__(self, stem: Sequence[nn.Module], layers: Sequence[Sequence[PathModule]], active: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*stem)
        self.layers = nn.ModuleList(nn.ModuleList(modules) for modules in layers)
        self.active = active

    @property
    def shape(self) -> tuple[int, int, int]:
        """L, N and M."""
        return len(self.layers), self.active, len(self.layers[0])  # type: ignore[arg-type]

    def module(self, layer: int, number: int) -> PathModule:
        """A module by its layer and number."""
        found: PathModule = self.layers[layer][number]  # type: ignore[index]
        return found

    def along(self, path: Tensor) -> list[list[PathModule]]:
        """The active modules of a path (L, N) by layer, each once, in the order of their numbers."""
        return [[self.module(layer, m) for m in sorted(set(row))] for layer, row in enumerate(path.tolist())]

    def forward(self, x: Tensor, path: Tensor | None = None) -> Tensor:
        """Features `(B, D)` of samples `(B, ...)` along a path (L, N); None is through the first N modules."""
        if path is None:
            path = torch.arange(self.active).expand(len(self.layers), -1)
        h = self.stem(x)
        for modules in self.along(path):
            first, *others = modules
            total = first(h)
            for module in others:
                total = total + module(h)
            h = total
        return h


class Paths(Scheme):
    """Each task reads the features along its path.

    Attributes:
        paths: (L, N) by task label.
    """

    label = "paths"

    def __init__(self) -> None:
        super().__init__()
        self.paths = Shelf()

    def path(self, task: int) -> Tensor:
        """The path (L, N) of a task.

        Raises:
            ValueError: It has none.
        """
        found = self.paths.get(task)
        if not found:
            raise ValueError(f"task {task} has no path: it was not trained with PathNetPlugin")
        return found["path"]

    def put(self, task: int, path: Tensor) -> None:
        """Sets a task's path."""
        self.paths.put(task, {"path": path.clone()})

    def read(self, features: nn.Module, x: Tensor, task: int) -> Tensor:
        """Features `(B, D)` along the task's path."""
        z: Tensor = features(x, self.path(task))
        return z

    def effective(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """The weights of the modules on the task's path."""
        assert isinstance(features, PathFeatures)
        active = {id(p) for modules in features.along(self.path(task)) for m in modules for p in m.parameters()}
        return {name: p.detach().clone() for name, p in features.named_parameters() if id(p) in active}

    def maps(self, features: "PathFeatures", tasks: Sequence[int]) -> tuple[dict[str, list[list[float]]], ...]:
        """Which task uses, and which owns, which modules: layer -> a row a task of 1 or 0 a module, for both.

        A module belongs to the first task that keeps it on its path.
        """
        shape = features.shape
        uses = [self.used(shape, [task]) for task in tasks]
        owns = [use & ~self.used(shape, tasks[:number]) for number, use in enumerate(uses)]
        layers = range(shape[0])
        return tuple({str(n): [rows[n].float().tolist() for rows in found] for n in layers} for found in (uses, owns))

    def used(self, shape: tuple[int, int, int], tasks: Sequence[int]) -> Tensor:
        """(L, M) booleans: the modules on the paths of these tasks."""
        layers, _, modules = shape
        found = torch.zeros(layers, modules, dtype=torch.bool)
        for task in tasks:
            found.scatter_(1, self.path(task).cpu(), True)
        return found
