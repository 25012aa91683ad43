"""What a study may say of a network; no torch, so that `cl-ext plan` can check it at once."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

NETWORKS = ("mlp", "cnn", "resnet18")
HEADS = ("full", "growing")
INITS = ("default", "xavier")


@dataclass(frozen=True)
class NetworkSpec:
    """A network by name and size.

    Attributes:
        name: `mlp`, `cnn` (two convolutions, two linear layers) or `resnet18` (slim, for 32 x 32 images).
        hidden: Units of the MLP's hidden layers, from the input on.
        bias: Whether the MLP's layers have biases.
        width: Filters of the first convolution: 32 in `cnn`, 20 in `resnet18` (the field's slim form) by default.
        head: `full` covers all K classes of the stream from the start; `growing` adds units when classes arrive.
        init: How the MLP's weights begin: `default` as PyTorch makes them, `xavier` uniform after Glorot & Bengio 2010
            with biases of zero, as in the studies of Buzzega et al. 2020 on MNIST.
    """

    name: str = "mlp"
    hidden: tuple[int, ...] = (100, 100)
    bias: bool = True
    width: int | None = None
    head: str = "full"
    init: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if self.name not in NETWORKS:
            raise ValueError(f"network.name is {self.name!r}; it can be one of {', '.join(NETWORKS)}")
        if self.head not in HEADS:
            raise ValueError(f"network.head is {self.head!r}; it can be one of {', '.join(HEADS)}")
        if self.init not in INITS:
            raise ValueError(f"network.init is {self.init!r}; it can be one of {', '.join(INITS)}")
        if self.init != "default" and self.name != "mlp":
            raise ValueError(f"network.init is for the mlp, the network is {self.name!r}")
        if self.init != "default" and self.head != "full":
            raise ValueError(f"network.init {self.init} is for a full head: Avalanche makes a growing one's new units")
        if any(not isinstance(units, int) or units < 1 for units in self.hidden):
            raise ValueError(f"network.hidden is {list(self.hidden)}; it takes whole numbers of units, each at least 1")
        if self.name != "mlp" and (self.hidden != (100, 100) or not self.bias):
            raise ValueError(f"network.hidden and network.bias are for the mlp, the network is {self.name!r}")
        if self.name == "mlp" and self.width is not None:
            raise ValueError("network.width is for cnn and resnet18; an mlp takes network.hidden")
        if self.width is not None and self.width < 1:
            raise ValueError(f"network.width is {self.width}; it takes a whole number of filters, at least 1")

    @property
    def filters(self) -> int:
        """Filters of the first convolution."""
        return self.width if self.width is not None else {"cnn": 32, "resnet18": 20}.get(self.name, 0)

    def to_dict(self) -> dict[str, Any]:
        """The fields that this network has, for the cell's canonical JSON.

        `init` is younger than the first records: at its default it is left out, so that ids stay.
        """
        fields = asdict(self) | {"hidden": list(self.hidden)}
        unused = ["width"] if self.name == "mlp" else ["hidden", "bias"]
        unused += ["init"] if self.init == "default" else []
        return {key: value for key, value in fields.items() if key not in unused}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "NetworkSpec":
        """The inverse of `to_dict`."""
        return cls(**fields)
