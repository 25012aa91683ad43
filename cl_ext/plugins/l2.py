"""The L2 penalty: stay near the latest weights, every weight alike.

The baseline that every importance has to beat (Kirkpatrick et al. 2017; Hsu et al. 2018).
"""

from typing import Any

from cl_ext.plugins.checks import check_number
from cl_ext.plugins.quadratic import Heads, QuadraticPenaltyPlugin

import torch


class L2Plugin(QuadraticPenaltyPlugin):
    """Later experiences train on `L(theta) + lambda sum (theta - theta*)^2`, `theta*` the latest weights.

    No factor 1/2. It is EWC's penalty with one anchor, every Fisher entry 1 and twice EWC's lambda. The default
    strength, 0.01, is Hsu et al.'s for task-incremental split MNIST (their code).
    """

    name = "L2"

    def __init__(self, l2_lambda: float = 0.01, heads: Heads = "include") -> None:
        """Sets the hyper-parameters.

        Args:
            l2_lambda: strength, >= 0; no factor 1/2.
            heads: "include" or "exclude" the network's heads from the penalty.

        Raises:
            TypeError: if the strength is not a number.
            ValueError: if an argument is out of its range.
        """
        super().__init__(check_number(type(self).__name__, "l2_lambda", l2_lambda, 0.0), heads)

    @property
    def l2_lambda(self) -> float:
        """The penalty's strength."""
        return self.strength

    @torch.no_grad()
    def consolidate(self, strategy: Any) -> None:
        """`Omega = 1`, for entries that have grown too."""
        for omega in self._penalty.importance.tensors:
            omega.fill_(1.0)
