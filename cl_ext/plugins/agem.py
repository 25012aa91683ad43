"""Averaged Gradient Episodic Memory (Chaudhry et al., ICLR 2019).

Symbols as in the paper: `g` the step's gradient, `g_ref` the gradient of the loss on a random batch of the memory, `g~`
the gradient to step along. `docs/methods/gem.md` has the equations and the deviations.
"""

from collections.abc import Sequence

from cl_ext.nn.projection import Projection, project_agem
from cl_ext.plugins.checks import check_count
from cl_ext.plugins.gem import EpisodicProjectionPlugin, Samples, samples

from torch import Tensor


class AGEMPlugin(EpisodicProjectionPlugin):
    """Averaged Gradient Episodic Memory: one constraint, on the average loss over the memory of all past experiences.

    At each step, with `g_ref` the gradient of the loss on `mem_batch_size` samples drawn anew, uniformly and without
    repetition, from the memories of all past experiences together,

        g~ = g - (<g, g_ref> / |g_ref|^2) g_ref   where <g, g_ref> < 0,   and g elsewhere.

    Each experience's memory is a uniform choice of the samples of its first epoch. That the memory's loss does not rise
    is true, to first order, of plain SGD only: momentum, weight decay and Adam step elsewhere.
    """

    name = "AGEM"

    def __init__(self, mem_size: int = 250, mem_batch_size: int = 256, seed: int = 0) -> None:
        """Sets the hyper-parameters.

        Args:
            mem_size: samples kept of each experience, >= 0; with 0 it equals training without the plugin.
            mem_batch_size: samples of the reference batch, >= 1; all of the memory while that has fewer.
            seed: of the plugin's own generators, >= 0: what is kept, and what is drawn from it.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__(mem_size, "reservoir", seed)
        self.mem_batch_size = check_count(type(self).__name__, "mem_batch_size", mem_batch_size)

    def references(self) -> Sequence[Samples]:
        """Returns one batch drawn from the whole memory."""
        batch = self._memory.sample(self.mem_batch_size, closed=True)
        return [] if batch is None else [samples(batch)]

    def project(self, g: Tensor, G: Tensor) -> Projection:
        """Returns `project_agem(g, g_ref)`."""
        return project_agem(g, G[0])
