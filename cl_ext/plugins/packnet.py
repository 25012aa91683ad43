"""PackNet (Mallya and Lazebnik, CVPR 2018): tasks packed into one network by pruning.

Symbols: `p_t` the share of its own weights that the t-th task gives up, `T` the number of tasks.
"""

from collections.abc import Sequence
from typing import Any

from cl_ext.nn.phases import run_epochs
from cl_ext.nn.sparsity import equal_share, smallest_owned
from cl_ext.plugins.checks import check_count, check_number
from cl_ext.plugins.masked import Extra, MaskedPlugin


class PackNetPlugin(MaskedPlugin):
    """PackNet, on an expandable network.

    Task t trains all weights that nobody owns; it reads those of earlier tasks and leaves them as they are. Then, in
    each layer, the share `p_t` of its own weights that are smallest in absolute value becomes 0 and free, and what is
    left is trained for some more epochs. The next task's weights therefore begin at 0. Each task has a head of its
    own, which is not pruned.

    The strategy's own `train_epochs` are the first phase; the second runs before the experience ends, with a fresh
    optimizer's state. Earlier tasks' outputs stay as they are, bit for bit, under any optimizer.

    Attributes:
        prune: `p_t` by position, the last one repeated; None for equal shares.
    """

    name = "PackNet"

    def __init__(
        self,
        prune: float | Sequence[float] | str = 0.5,
        retrain_epochs: int = 10,
        retrain_lr_factor: float = 0.1,
        tasks: int | None = None,
        biases: Extra = "per_task",
        norm: Extra = "per_task",
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            prune: `p_t` in [0, 1]: one for all tasks, or one for each (the last is repeated), or "equal", so that all
                `tasks` own equally much: p_t = (T - t) / (T - t + 1). The paper has 0.5, then 0.75.
            retrain_epochs: epochs of the second phase, >= 0; where nothing was pruned there is none, but for the last
                of `tasks`, which trains as long as the others.
            retrain_lr_factor: the second phase's learning rate, which no schedule changes, in that with which the
                experience began, > 0; 0.1 is the authors' code's.
            tasks: T >= 1, if it is known: the last task then keeps all. "equal" needs it.
            biases: "per_task", or "frozen" after the first task, as in the paper.
            norm: the same for batch norm: weights, biases and running statistics. Frozen, it is read as in evaluation.

        Raises:
            TypeError: if an argument is of a wrong kind.
            ValueError: if an argument is out of its range.
        """
        super().__init__(biases, norm)
        owner = type(self).__name__
        self.total = None if tasks is None else check_count(owner, "tasks", tasks)
        self.prune: tuple[float, ...] | None = None
        if isinstance(prune, str):
            if prune != "equal":
                raise ValueError(f"{owner}: prune must be numbers in [0, 1] or 'equal', got {prune!r}")
            if self.total is None:
                raise ValueError(f"{owner}: prune 'equal' needs tasks, the number of tasks")
        else:
            shares = list(prune) if isinstance(prune, Sequence) else [prune]
            if not shares:
                raise ValueError(f"{owner}: prune must be numbers in [0, 1] or 'equal', got {prune!r}")
            self.prune = tuple(check_number(owner, "prune", share, 0.0, 1.0) for share in shares)
        self.retrain_epochs = check_count(owner, "retrain_epochs", retrain_epochs, low=0)
        self.retrain_lr_factor = check_number(owner, "retrain_lr_factor", retrain_lr_factor, 0.0, above=True)

    def share(self, position: int) -> float:
        """`p_t` of the task at `position`, from 1."""
        if self._is_last(position):
            return 0.0
        if self.prune is None:
            assert self.total is not None  # the constructor asked for it
            return equal_share(position, self.total)
        return self.prune[min(position, len(self.prune)) - 1]

    def _is_last(self, position: int) -> bool:
        return self.total is not None and position >= self.total

    def _prunes(self, position: int) -> bool:
        """Whether a task at `position` would give up weights if it were not the last."""
        return self.prune is None or self.prune[min(position, len(self.prune)) - 1] > 0.0

    def pack(self, share: float) -> int:
        """Frees a share of the task's own weights in each layer; returns how many entries that is."""
        weights = self.weights()
        return self.give_up(
            {name: smallest_owned(weights[name], owned, None, share) for name, owned in self.owned().items()}
        )

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Prunes, trains what is left, and ends the task."""
        pruned = self.pack(self.share(self.now))
        # The last task keeps all, and trains on as the others do: with fewer steps it would be behind for no reason.
        if pruned or (self._is_last(self.now) and self._prunes(self.now)):
            self.hold()
            with self.phase(strategy, self.retrain_lr_factor):
                run_epochs(strategy, self.retrain_epochs)
        self.close(strategy)
