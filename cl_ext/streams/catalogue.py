"""The data sets that have a name: what is known of each without loading it. No torch here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without loading it.

    Attributes:
        name: the word users write in a study.
        shape: of one image, ``(H, W, C)``.
        classes: number of classes.
        train: number of training images.
        test: number of test images.
        mean: of each channel of the training images scaled to [0, 1]; the constants that the field uses.
        std: the same for the standard deviation.
        source: who made it, and its licence.
        how: how the project gets it.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    train: int
    test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    how: str


_TORCHVISION = "torchvision downloads it under the data root where it is absent"
_AVALANCHE = "Avalanche downloads it under the data root where it is absent"

_ROWS = (
    DatasetInfo(
        "digits", (8, 8, 1), 10, 1438, 359, (0.3053,), (0.3764,),
        "UCI Optical Recognition of Handwritten Digits (Alpaydin, Kaynak), CC BY 4.0",
        "comes with scikit-learn; a fixed stratified 80/20 split; grey values 0..16 are stored as 0..255",
    ),
    DatasetInfo(
        "mnist", (28, 28, 1), 10, 60_000, 10_000, (0.1307,), (0.3081,),
        "LeCun, Cortes, Burges; usually given as CC BY-SA 3.0", _TORCHVISION,
    ),
    DatasetInfo(
        "fashion_mnist", (28, 28, 1), 10, 60_000, 10_000, (0.2860,), (0.3530,),
        "Xiao, Rasul, Vollgraf (Zalando), MIT", _TORCHVISION,
    ),
    DatasetInfo(
        "kmnist", (28, 28, 1), 10, 60_000, 10_000, (0.1918,), (0.3483,),
        "Clanuwat et al. (CODH), CC BY-SA 4.0", _TORCHVISION,
    ),
    DatasetInfo(
        "usps", (16, 16, 1), 10, 7_291, 2_007, (0.2469,), (0.2989,),
        "Hull 1994; no licence stated", _TORCHVISION,
    ),
    DatasetInfo(
        "svhn", (32, 32, 3), 10, 73_257, 26_032, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970),
        "Netzer et al. 2011; for non-commercial use", _TORCHVISION,
    ),
    DatasetInfo(
        "cifar10", (32, 32, 3), 10, 50_000, 10_000, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616),
        "Krizhevsky 2009; no licence stated", _TORCHVISION,
    ),
    DatasetInfo(
        "cifar100", (32, 32, 3), 100, 50_000, 10_000, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762),
        "Krizhevsky 2009; no licence stated", _TORCHVISION,
    ),
    DatasetInfo(
        "tiny_imagenet", (64, 64, 3), 200, 100_000, 10_000, (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821),
        "Stanford CS231n, from ImageNet; for non-commercial research", _AVALANCHE,
    ),
    DatasetInfo(
        "core50", (32, 32, 3), 50, 119_894, 44_972, (0.4850, 0.4560, 0.4060), (0.2290, 0.2240, 0.2250),
        "Lomonaco, Maltoni 2017, CC BY 4.0", _AVALANCHE + "; the 32x32 version, object-level labels",
    ),
)  # fmt: skip

DATASETS: dict[str, DatasetInfo] = {row.name: row for row in _ROWS}
