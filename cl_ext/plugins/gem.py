"""Gradient Episodic Memory (Lopez-Paz and Ranzato, NeurIPS 2017), and what it shares with A-GEM.

Symbols as in the paper: `M_k` the memory of experience k, `g` the step's gradient, `g_k` the gradient of the loss on
`M_k`, `g~` the gradient to step along, `gamma` the margin. `docs/methods/gem.md` has the equations and the deviations.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from cl_ext.nn.memory import Policy, RehearsalMemory
from cl_ext.nn.parameters import trainable_parameters
from cl_ext.nn.passes import evaluation_mode, logits
from cl_ext.nn.projection import FlatGradients, Projection, assign_gradient_, project_gem
from cl_ext.plugins.base import MethodPlugin
from cl_ext.plugins.checks import check_count, check_number

import torch
from torch import Tensor

Samples = tuple[Tensor, Tensor, Tensor]
"""Inputs (N, ...), labels (N,) and task labels (N,)."""


def samples(fields: Mapping[str, Tensor]) -> Samples:
    """Returns a memory's fields in the order of `Samples`."""
    return fields["x"], fields["y"], fields["t"]


class EpisodicProjectionPlugin(MethodPlugin):
    """Projects each step's gradient against gradients of losses on a memory of past experiences.

    The memory is filled in an experience's first epoch, with the batches as they come from the loader, and read from
    the next experience on. `g` is whatever is in `.grad` when this plugin's `after_backward` comes, so what plugins
    before it in the list add is projected too. Memory passes run in eval mode, with the strategy's own criterion and
    the samples' own task labels: dropout is off, batch norm uses its running statistics and does not move them, and no
    random number is drawn.

    Attributes:
        mem_size: samples kept of each experience.
    """

    def __init__(self, mem_size: int, policy: Policy, seed: int) -> None:
        """Sets the memory; see the methods' own hyper-parameters."""
        super().__init__()
        owner = type(self).__name__
        size, seed = check_count(owner, "mem_size", mem_size, low=0), check_count(owner, "seed", seed, low=0)
        self._memory = RehearsalMemory(size, policy, seed)
        self._flat = FlatGradients()
        self._start_epoch()

    @abstractmethod
    def references(self) -> Sequence[Samples]:
        """Returns the batches of memory whose losses must not rise, for one step; none where nothing is kept."""

    @abstractmethod
    def project(self, g: Tensor, G: Tensor) -> Projection:
        """Returns what becomes of the step's gradient `g` (P,), given those of the references, `G` (t, P)."""

    @property
    def mem_size(self) -> int:
        """Samples kept of each experience."""
        return self._memory.mem_size

    @property
    def memory(self) -> list[Samples]:
        """The memory by past experience: inputs (N, ...), labels (N,) and task labels (N,); views, not copies."""
        return [samples(fields) for fields in self._memory.closed]

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes: the samples and the gradients, the step's included."""
        return self._memory.bytes() + self._flat.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        return super().state_dict() | {"memory": self._memory.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin.
        """
        super().load_state_dict(state)
        self._memory.load_state_dict(state["memory"])

    def _start_epoch(self) -> None:
        self._steps, self._projected, self._violated, self._ratios = 0, 0, 0.0, 0.0

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Begins the experience's memory."""
        trainable_parameters(strategy.model)  # refuses a network with nothing to train
        self._memory.clear()  # of an experience that was broken off
        self._memory.to(strategy.device)

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts the epoch's counts."""
        self._start_epoch()

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Offers the batch to the memory, before any plugin's `before_forward` changes it; in the first epoch only."""
        if strategy.clock.train_exp_epochs == 0:
            x, y, *others = strategy.mbatch
            self._memory.add(x=x, y=y, t=others[-1] if others else torch.zeros_like(y))

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Computes the references' gradients and projects the step's, in place."""
        references = self.references()
        if not references:
            return
        # anew at each step: evaluation grows heads, and methods such as DEN grow or freeze layers inside an experience
        parameters, last = list(trainable_parameters(strategy.model).values()), len(references)
        self._flat.align(parameters, last + 1)
        with evaluation_mode(strategy.model), torch.enable_grad():
            for row, (x, y, t) in enumerate(references):
                loss = strategy._criterion(logits(strategy.model, x, t), y)
                # a loss that no weight in training has a part in (an old head on frozen layers) has the gradient 0
                used = torch.autograd.grad(loss, parameters, allow_unused=True) if loss.requires_grad else ()
                self._flat.write_(row, used or [None] * len(parameters))
        self._flat.write_(last, [p.grad for p in parameters])
        g = self._flat.rows[last]
        result = self.project(g, self._flat.rows[:last])
        if result.gradient is not g:
            assign_gradient_(parameters, result.gradient)
            self._projected += 1
        self._steps += 1
        self._violated += result.violated / last
        self._ratios += result.norm_ratio

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the epoch's means: steps projected, constraints violated, `|g~| / |g|`."""
        if self._steps:
            self.publish(strategy, "Projected", self._projected / self._steps)
            self.publish(strategy, "Violations", self._violated / self._steps)
            self.publish(strategy, "NormRatio", self._ratios / self._steps)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Ends the experience's memory: from now on it is a constraint."""
        self._memory.close()
        self.experiences += 1


class GEMPlugin(EpisodicProjectionPlugin):
    """Gradient Episodic Memory.

    At each step of experience t, with `g_k` the gradient of the loss on all of `M_k`, k < t: where any `<g, g_k> < 0`,

        g~ = g + G^T v,   v = argmin 1/2 v^T (G G^T + epsilon I) v + (G g)^T v   subject to v >= gamma

    and g elsewhere: with gamma = epsilon = 0 the nearest vector with `<g~, g_k> >= 0` for all k. The margin is a lower
    bound of v, as in the authors' code: in every step that is projected it pushes along the old tasks' gradients, by
    gamma each. The experience's own memory is no constraint. That no old loss rises is true, to first order, of plain
    SGD only: momentum, weight decay and Adam step elsewhere.

    `M_k` is a ring: the last samples of the experience's first epoch. Nothing in it is random.
    """

    name = "GEM"

    def __init__(self, mem_size: int = 256, margin: float = 0.5, regularisation: float = 1e-3) -> None:
        """Sets the hyper-parameters.

        Args:
            mem_size: samples kept of each experience, >= 0; with 0 it equals training without the plugin.
            margin: gamma, the lower bound of the dual variables, >= 0.
            regularisation: epsilon on the diagonal of the Gram matrix, >= 0; it has the unit of a squared gradient.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        owner = type(self).__name__
        super().__init__(mem_size, "ring", 0)
        self.margin = check_number(owner, "margin", margin, 0.0)
        self.regularisation = check_number(owner, "regularisation", regularisation, 0.0)

    def references(self) -> Sequence[Samples]:
        """Returns the memories of all past experiences."""
        return self.memory

    def project(self, g: Tensor, G: Tensor) -> Projection:
        """Returns `project_gem(g, G)` with the plugin's margin and regularisation."""
        return project_gem(g, G, self.margin, self.regularisation)
