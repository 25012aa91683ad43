"""The plain networks of the studies: an MLP, a small CNN and the slim ResNet-18.

Each is a trunk `features: (B, ...) -> (B, D)` and a linear `classifier: (B, D) -> (B, K)`, the two parts that
methods ask for by name (iCaRL, LFL, CWR*).
"""

from collections.abc import Sequence

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.models.spec import NetworkSpec

import torch
from avalanche.models import IncrementalClassifier
from avalanche.models.base_model import BaseModel
from torch import Tensor, nn


class Network(nn.Module, BaseModel):
    """A trunk and a linear classifier.

    Args:
        features: Maps images `(B, C, H, W)`, or flat samples `(B, D_in)`, to features `(B, D)`.
        classifier: Maps features `(B, D)` to logits `(B, K)`.
    """

    def __init__(self, features: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)` of the images `x`."""
        return self.classifier(self.features(x))

    def get_features(self, x: Tensor) -> Tensor:
        """Features `(B, D)`: the name that Avalanche's feature-based methods call."""
        return self.features(x)


class BasicBlock(nn.Module):
    """ResNet's block of two 3 x 3 convolutions with a shortcut (He et al. 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C_in, H, W)` -> `(B, C, H / stride, W / stride)`."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def mlp_features(inputs: int, hidden: Sequence[int], bias: bool) -> nn.Sequential:
    """Flattening and ReLU layers of `hidden` units."""
    layers: list[nn.Module] = [nn.Flatten()]
    for units in hidden:
        layers += [nn.Linear(inputs, units, bias=bias), nn.ReLU()]
        inputs = units
    return nn.Sequential(*layers)


def cnn_features(channels: int, size: int, filters: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with max pooling and a linear layer of 128 units, for images of `size` x `size`."""
    side = size // 4
    return nn.Sequential(
        nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(filters, 2 * filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * filters * side * side, 128), nn.ReLU(),
    )  # fmt: skip


def resnet18_features(channels: int, filters: int) -> nn.Sequential:
    """The slim ResNet-18 of the field (Lopez-Paz & Ranzato 2017): no stem pooling, `filters` = 20 in the papers."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, filters, 3, padding=1, bias=False),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
    ]
    width = filters
    for stage, stride in enumerate((1, 2, 2, 2)):
        for block in range(2):
            layers.append(BasicBlock(width, filters * 2**stage, stride if block == 0 else 1))
            width = filters * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def xavier_(network: nn.Module) -> None:
    """Draws the weights of linear layers from U(-a, a), a = sqrt(6 / (D_in + D_out)), and sets their biases to 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build_network(spec: NetworkSpec, input_shape: Sequence[int], classes: int) -> Network:
    """Makes the network of a study; its initial weights, PyTorch's or Xavier's, come from the global generator.

    Args:
        spec: Name and sizes.
        input_shape: Shape of one sample, `(C, H, W)` or `(D,)`.
        classes: K, the classes of the whole stream; a `growing` head starts with two units and grows to them.

    Raises:
        ValueError: The network can't take samples of this shape.
    """
    if spec.name == "mlp":
        inputs = int(torch.Size(input_shape).numel())
        features: nn.Module = mlp_features(inputs, spec.hidden, spec.bias)
        width = spec.hidden[-1] if spec.hidden else inputs
    else:
        if len(input_shape) != 3 or input_shape[1] != input_shape[2] or input_shape[1] < 4:
            raise ValueError(
                f"network.name is {spec.name!r}, which takes square images (C, H, W) of at least 4 x 4 pixels; "
                f"the samples of this stream have shape {tuple(input_shape)}: use an mlp"
            )
        if spec.name == "cnn":
            features = cnn_features(input_shape[0], input_shape[1], spec.filters)
            width = 128
        else:
            features = resnet18_features(input_shape[0], spec.filters)
            width = spec.filters * 8
    if spec.head == "growing":
        # masking would write -1000 into the logits of units that no class has yet; DESIGN masks in loss and argmax only
        classifier: nn.Module = IncrementalClassifier(width, initial_out_features=2, masking=False)
    else:
        classifier = nn.Linear(width, classes, bias=spec.bias if spec.name == "mlp" else True)
    network = Network(features, classifier)
    if spec.init == "xavier":
        xavier_(network)
    return network
