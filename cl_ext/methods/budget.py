"""The training budget of a study: the same for every method; no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

OPTIMIZERS = ("sgd", "adam")
LOSSES = ("all", "seen")


@dataclass(frozen=True)
class Budget:
    """What every method of a study may spend on an experience.

    Attributes:
        optimizer: `sgd` or `adam`.
        lr: Learning rate.
        momentum: Momentum of SGD.
        weight_decay: L2 regularisation by the optimizer.
        batch_size: Samples of the current experience in a step; rehearsal adds its own.
        epochs: Passes over each experience.
        online: One pass, as in online continual learning: `epochs` must be 1.
        reset_optimizer: Whether the optimizer's state is dropped at each experience (many papers make a new Adam).
        loss: Class-incremental training takes the loss over `all` K classes or over the `seen` ones.
        drop_last: Leaves out an epoch's last batch where it is not full, as the code of some papers does.
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch_size: int = 32
    epochs: int = 1
    online: bool = False
    reset_optimizer: bool = False
    loss: str = "all"
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"budget.optimizer is {self.optimizer!r}; it can be one of {', '.join(OPTIMIZERS)}")
        if self.loss not in LOSSES:
            raise ValueError(f"budget.loss is {self.loss!r}; it can be one of {', '.join(LOSSES)}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"budget.lr is {self.lr}; it takes a number above 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"budget.momentum is {self.momentum}; it takes a number from 0 to below 1")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"budget.momentum is for sgd; budget.optimizer is {self.optimizer!r}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"budget.weight_decay is {self.weight_decay}; it takes a number of at least 0")
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"budget.{name} is {getattr(self, name)}; it takes a whole number of at least 1")
        if self.online and self.epochs != 1:
            raise ValueError(
                f"budget.online is true, which is one pass, and budget.epochs is {self.epochs}: leave it out"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields, for the cell's canonical JSON.

        `drop_last` is younger than the first records: at its default it is left out, so that ids stay.
        """
        fields = asdict(self)
        if not self.drop_last:
            del fields["drop_last"]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Budget":
        """The inverse of `to_dict`."""
        return cls(**fields)
