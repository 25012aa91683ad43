"""PathNet (Fernando et al. 2017): a tournament of paths through a network of modules, at each task.

Symbols as in the paper: P genotypes, L layers, N active of M modules in a layer. `docs/methods/pathnet.md` has the
deviations.
"""

from collections.abc import Mapping
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.nn.paths import PathFeatures, Paths, mutated, random_paths
from cl_ext.nn.phases import point_optimizer, train_all
from cl_ext.nn.scheme import Scheme
from cl_ext.plugins.architecture import ExpandablePlugin
from cl_ext.plugins.checks import check_count

import torch
from torch import Tensor

UNKNOWN = (-1.0, float("-inf"))
"""The fitness of a genotype that was not trained yet."""


class PathNetPlugin(ExpandablePlugin):
    """PathNet: two paths are trained one after another, the worse one becomes a mutated copy of the better one.

    The tournament runs inside the strategy's own epochs. In each generation two of the P genotypes are drawn and
    trained, each for an evaluation's iterations and with a fresh state of the optimizer; fitness is the training
    accuracy meanwhile, at equal ones the mean loss. Weights are shared: what both have learnt stays. When the task
    ends, the fittest path is its own for ever: the modules on it are never trained again. The next task finds all other
    modules with new weights and a new population, whose paths may lead through the old modules.

    It needs a network of `cl_ext.models.pathnet`, and a task label of its own for each experience, in training
    and at test time.

    Attributes:
        genotypes: (P, L, N), those of the latest task.
    """

    name = "PathNet"

    def __init__(
        self, population: int = 64, iterations: int = 50, generations: int | None = None, seed: int = 0
    ) -> None:
        """Sets the hyper-parameters; the defaults are the paper's for MNIST.

        Args:
            population: P, >= 1. With 1 there is no tournament: one path is drawn and trained.
            iterations: of an evaluation, >= 1; there are as many generations as an experience's iterations have room
                for, and what is left trains the fittest path.
            generations: >= 1, and an evaluation has an even share of the experience's iterations instead; None goes by
                `iterations`.
            seed: of the plugin's own generator, >= 0: genotypes, pairs, mutations and new weights.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        owner = type(self).__name__
        self.population = check_count(owner, "population", population)
        self.iterations = check_count(owner, "iterations", iterations)
        self.generations = None if generations is None else check_count(owner, "generations", generations)
        self._draws = torch.Generator().manual_seed(check_count(owner, "seed", seed, low=0))
        self.genotypes = torch.zeros(0, dtype=torch.int64)
        self._path_bytes = 0
        self._begin([])

    def _begin(self, ends: list[int]) -> None:
        """Starts an experience's tournament; evaluation i ends with iteration `ends[i]`."""
        self._ends, self._done, self._evaluation = ends, 0, -1
        self._pair: list[int] = []
        self._fitness = [UNKNOWN] * self.population
        self._right: Tensor | float = 0.0
        self._loss: Tensor | float = 0.0
        self._samples = 0

    def extra_bytes(self) -> int:
        """Returns the memory held beside the weights, in bytes: the genotypes, and the paths of the tasks."""
        return self.genotypes.nbytes + self._path_bytes

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences; the tasks' paths are the network's."""
        own = {"draws": self._draws.get_state(), "genotypes": self.genotypes.clone(), "path_bytes": self._path_bytes}
        return super().state_dict() | own

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it."""
        super().load_state_dict(state)
        self._draws.set_state(state["draws"].cpu())
        self.genotypes = state["genotypes"].cpu().clone()
        self._path_bytes = int(state.get("path_bytes", 0))  # states from before they were counted

    def network(self, strategy: Any) -> ExpandableNetwork:
        """The strategy's network.

        Raises:
            TypeError: if it is not one of modules.
        """
        network = super().network(strategy)
        if not isinstance(network.features, PathFeatures):
            raise TypeError(
                "PathNetPlugin needs a network of modules, which cl_ext.models.pathnet(model) makes of yours"
            )
        return network

    def _parts(self, strategy: Any) -> tuple[ExpandableNetwork, PathFeatures, Paths]:
        network = self.network(strategy)
        assert isinstance(network.features, PathFeatures)
        assert isinstance(network.scheme, Paths)
        return network, network.features, network.scheme

    def before_train_dataset_adaptation(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Notes the task."""
        network = self.network(strategy)
        scheme = network.scheme
        if not isinstance(scheme, Paths) and (type(scheme) is not Scheme or network.tasks):
            raise TypeError(
                f"PathNetPlugin needs a network that no other method has trained; this one is {scheme.label!r}"
            )
        self.begin_task(strategy)
        if not isinstance(scheme, Paths):
            network.scheme = Paths()

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Rests what earlier tasks use, gives all other modules new weights, and draws the population."""
        network, features, scheme = self._parts(strategy)
        layers, active, modules = features.shape
        used = scheme.used(features.shape, self.tasks[:-1])
        for task in self.tasks[:-1]:
            network.heads[task].requires_grad_(False)
        for layer in range(layers):
            for number in range(modules):
                module = features.module(layer, number)
                if used[layer, number]:
                    module.rest()
                elif len(self.tasks) > 1:
                    module.redraw(self._draws)
        for parameter in network.parameters():
            parameter.grad = None
        self.genotypes = random_paths(self.population, layers, active, modules, self._draws)
        self._begin([])
        self._follow(strategy, self.genotypes[0])

    def _follow(self, strategy: Any, path: Tensor) -> None:
        """Makes a path the task's, and trains what is free on it, and the head."""
        network, features, scheme = self._parts(strategy)
        task = self.tasks[-1]
        scheme.put(task, path.to(strategy.device))
        head = network.heads[task]
        free = [p for modules in features.along(path) for m in modules for p in m.parameters() if p.requires_grad]
        for group in strategy.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        point_optimizer(strategy, [*free, *(p for p in head.parameters() if p.requires_grad)])

    def _schedule(self, total: int) -> list[int]:
        """With which of `total` iterations the evaluations end, two a generation."""
        if self.population == 1:
            return []
        if self.generations is None:
            count = total // (2 * self.iterations) * 2
            return [(i + 1) * self.iterations for i in range(count)]
        count = 2 * min(self.generations, total // 2)
        return [(i + 1) * total // count for i in range(count)]

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Turns to the next evaluation where one ends."""
        if self._done == 0:
            self._ends = self._schedule(len(strategy.dataloader) * strategy.train_epochs)
            if self._ends:
                self._next(strategy)
        elif 0 <= self._evaluation < len(self._ends) and self._done == self._ends[self._evaluation]:
            self._judge(strategy)
            self._next(strategy)
        self._done += 1

    def _next(self, strategy: Any) -> None:
        """Begins the next evaluation; after the last one the fittest path goes on."""
        self._evaluation += 1
        self._right, self._loss, self._samples = 0.0, 0.0, 0
        if self._evaluation == len(self._ends):
            self._follow(strategy, self.genotypes[self.fittest()])
            return
        if self._evaluation % 2 == 0:
            self._pair = torch.randperm(self.population, generator=self._draws)[:2].tolist()
        self._follow(strategy, self.genotypes[self._pair[self._evaluation % 2]])

    def _judge(self, strategy: Any) -> None:
        """Ends an evaluation, and with the second one of a pair the generation."""
        samples = max(1, self._samples)
        self._fitness[self._pair[self._evaluation % 2]] = float(self._right) / samples, -float(self._loss) / samples
        if self._evaluation % 2:
            first, second = self._pair
            winner, loser = (second, first) if self._fitness[second] > self._fitness[first] else (first, second)
            _, _, modules = self._parts(strategy)[1].shape
            self.genotypes[loser] = mutated(self.genotypes[winner], modules, self._draws)
            self._fitness[loser] = UNKNOWN

    def fittest(self) -> int:
        """The number of the genotype with the highest fitness; the first of equals."""
        return max(range(self.population), key=lambda number: self._fitness[number])

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Counts what the path in training answers rightly."""
        super().before_backward(strategy)
        count = len(strategy.mb_y)
        self._right = self._right + (strategy.mb_output.detach().argmax(1) == strategy.mb_y).sum()
        self._loss = self._loss + strategy.loss.detach() * count
        self._samples += count

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keeps the fittest path, and publishes what it is made of."""
        _, features, scheme = self._parts(strategy)
        if 0 <= self._evaluation < len(self._ends):
            stopped_in_the_first = self._samples > 0 and all(fitness == UNKNOWN for fitness in self._fitness)
            if self._done == self._ends[self._evaluation] or stopped_in_the_first:
                self._judge(strategy)
        if self._ends:
            self._follow(strategy, self.genotypes[self.fittest()])
        self._path_bytes = sum(tensor.nbytes for tensor in scheme.buffers())
        before = scheme.used(features.shape, self.tasks[:-1])
        own = scheme.used(features.shape, self.tasks[-1:])
        self.publish(strategy, "Generations", float(max(0, self._evaluation + 1) // 2))
        accuracy = self._fitness[self.fittest()][0] if self._ends else float(self._right) / max(1, self._samples)
        self.publish(strategy, "Fitness", accuracy)
        self.publish(strategy, "Reused", float((before & own).sum() / own.sum()))
        self.publish(strategy, "Frozen", float((before | own).float().mean()))
        train_all(strategy)
        self.experiences += 1
