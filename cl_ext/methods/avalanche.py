"""How Avalanche's regularisers and distillers are built; what is mended is mended in `cl_ext._avalanche_methods`."""

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext._avalanche_methods.regularisation import MendedLFL, MendedLwF, MendedMAS, MendedRWalk, MendedSI
from cl_ext.methods.context import Built, Context

from avalanche.training.plugins import CWRStarPlugin, EWCPlugin
from avalanche.training.supervised import Naive


def need_full_head(context: Context, method: str, why: str) -> None:
    """Raises one sentence where the study's head grows and the method can't follow it."""
    if context.network.head == "growing":
        raise ValueError(f"{method} can't follow a growing head, because {why}; use network.head: full")


def ewc(context: Context, ewc_lambda: float) -> Built:
    """EWC with an importance and an anchor for each past experience."""
    return context.fine_tuning_with(EWCPlugin(ewc_lambda))


def ewc_online(context: Context, ewc_lambda: float, decay_factor: float) -> Built:
    """EWC with one importance, `decay_factor` times the old one plus the new one, and one anchor."""
    return context.fine_tuning_with(EWCPlugin(ewc_lambda, mode="online", decay_factor=decay_factor))


def si(context: Context, si_lambda: float, eps: float) -> Built:
    """Synaptic intelligence."""
    return context.fine_tuning_with(MendedSI(si_lambda, eps=eps))


def mas(context: Context, mas_lambda: float, alpha: float) -> Built:
    """Memory-aware synapses."""
    return context.fine_tuning_with(MendedMAS(mas_lambda, alpha=alpha))


def rwalk(context: Context, rwalk_lambda: float, alpha: float, delta_t: int) -> Built:
    """Riemannian walk."""
    return context.fine_tuning_with(MendedRWalk(rwalk_lambda, ewc_alpha=alpha, delta_t=delta_t))


def lwf(context: Context, lwf_lambda: float, temperature: float) -> Built:
    """Learning without forgetting."""
    return context.fine_tuning_with(MendedLwF(alpha=lwf_lambda, temperature=temperature))


def lfl(context: Context, lfl_lambda: float) -> Built:
    """Less-forgetting learning."""
    plugin = MendedLFL(lfl_lambda)
    model = context.model()
    if not any(True for _ in model.features.parameters()):
        raise ValueError(
            "lfl holds features near their old values, and a network without hidden layers has none to train"
        )
    return context.built(Naive(**context.arguments(model, plugin)), plugin)


def cwr_star(context: Context) -> Built:
    """CWR*: after the first experience only the classifier's rows are trained, class by class."""
    model = context.model()
    strategy = Naive(**context.arguments(model, CWRStarPlugin(model)))
    return context.built(strategy, extra_bytes=lambda: sum(row.nbytes for row in model.saved_weights.values()))
