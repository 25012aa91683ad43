"""An evaluator for runs that nobody logs: Avalanche's own costs 0.1 ms a step with nothing in it.

Avalanche's `EvaluationPlugin` answers every callback of a step, copies the experience each time and then finds nothing
to do. Plugins still need an evaluator to publish their quantities to, so that none at all is no way out.
"""

import warnings
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)

from avalanche.training.plugins import EvaluationPlugin


class QuietEvaluation(EvaluationPlugin):
    """Keeps what plugins publish (`get_all_metrics()`); has no metrics or loggers, so no callback does anything."""

    # EvaluationPlugin invents a callback for every name that begins with before_ or after_; this one has none
    __getattribute__ = object.__getattribute__

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "No loggers specified": that is the point
            super().__init__()

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing."""
