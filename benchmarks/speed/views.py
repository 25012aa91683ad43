"""What two views of a batch cost, ours and kornia's: `python benchmarks/speed/views.py [--rounds N]`.

Batches of 32 and 128 colour images of 32 x 32, one thread, one process, CPU seconds of that thread. Both make the same
changes: crop with padding 4, flip, colour jitter (.4, .4, .2, .1; p .8), greying (p .2), Gaussian blur 3 x 3 (p 1 and
.1); kornia alone clips to [0, 1] and turns the hue in HSV. The package does not need it: it is timed where it can be
imported. The two take turns; printed are medians over rounds, with ranges.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.nn.views import ImageViews

import torch
from torch import Tensor


def ours() -> Callable[[Tensor], Any]:
    """Returns this package's views."""
    views, generator = ImageViews(), torch.Generator().manual_seed(0)
    return lambda x: views(x, generator)


def kornias() -> Callable[[Tensor], Any]:
    """Returns the same views by kornia."""
    from kornia import augmentation

    def view(blur: float) -> Any:
        return augmentation.AugmentationSequential(
            augmentation.RandomCrop((32, 32), padding=4),
            augmentation.RandomHorizontalFlip(),
            augmentation.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
            augmentation.RandomGrayscale(p=0.2),
            augmentation.RandomGaussianBlur((3, 3), (0.1, 2.0), p=blur),
        )

    first, second = view(1.0), view(0.1)
    return lambda x: (first(x), second(x))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    makers = {"ours": ours()}
    if importlib.util.find_spec("kornia") is not None:
        makers["kornia"] = kornias()
    print("| images | views | ms |\n|---|---|---|")
    for size in (32, 128):
        x = torch.rand(size, 3, 32, 32)
        seconds: dict[str, list[float]] = {name: [] for name in makers}
        for round_ in range(rounds + 1):
            for name, make in makers.items():
                start = time.thread_time()
                make(x)
                if round_:  # the first warms up
                    seconds[name].append(1e3 * (time.thread_time() - start))
        for name, values in seconds.items():
            print(f"| {size} | {name} | {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) |")


if __name__ == "__main__":
    main()
