"""How this package's architecture methods are built: their own network made of the study's, and one plugin."""

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.methods.avalanche import need_full_head
from cl_ext.methods.context import Built, Context
from cl_ext.models.expandable import ExpandableNetwork, expandable

from avalanche.training.supervised import Naive
from torch import nn


def _expandable(context: Context, name: str) -> ExpandableNetwork:
    """The study's network, expandable, with the initial weights that the seed gives to every row."""
    need_full_head(context, name, "it has a head a task, made of the classifier's rows")
    return expandable(context.model())


def _built(context: Context, model: nn.Module, plugin: object) -> Built:
    """`Naive` with the method's network and plugin; the plugin counts its own bytes."""
    return context.built(Naive(**context.arguments(model, plugin)), plugin)
