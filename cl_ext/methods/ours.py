"""How this package's own methods are built: fine-tuning with one plugin."""

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.methods.context import Built, Context
from cl_ext.plugins import RWalkPlugin, SCPPlugin

from avalanche.training.supervised import Naive


def rwalk(context: Context, rwalk_lambda: float, alpha: float, delta_t: int, epsilon: float, fisher: str) -> Built:
    """Riemannian walk in the paper's form."""
    plugin = RWalkPlugin(rwalk_lambda, alpha=alpha, delta_t=delta_t, epsilon=epsilon, fisher=fisher)  # type: ignore[arg-type]
    return context.built(Naive(**context.arguments(context.model(), plugin)), plugin)


def scp(context: Context, scp_lambda: float, alpha: float, mode: str, slices: int) -> Built:
    """Sliced Cramer preservation; its slices come from a generator of the cell's seed."""
    plugin = SCPPlugin(scp_lambda, alpha=alpha, mode=mode, slices=slices, seed=context.seed)  # type: ignore[arg-type]
    return context.built(Naive(**context.arguments(context.model(), plugin)), plugin)
