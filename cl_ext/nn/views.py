"""Two random views of each sample of a batch, for self-supervision: a few tensor operations on the whole batch.

Every sample has random numbers of its own, all from the generator that is handed in (one on the CPU serves any device).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Views = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""From a batch (B, ...) and a generator to two views of it, each (B, ...); the batch itself stays as it is."""

_GREY = (0.299, 0.587, 0.114)
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""Luma and the two axes of colour; the first row is `_GREY`."""


def crop_and_flip(x: Tensor, tops: Tensor, lefts: Tensor, flipped: Tensor, padding: int) -> Tensor:
    """Returns each image's window of its own size from the image with `padding` zeros around, mirrored where asked.

    Args:
        x: images (B, C, H, W).
        tops: first row of each window in the padded image, (B,) in 0..2 padding; `padding` leaves it in place.
        lefts: first column, the same.
        flipped: whether a window is mirrored left to right, (B,) bool.
        padding: >= 0.
    """
    H, W = x.shape[-2:]
    across = torch.arange(W, device=x.device)
    rows = tops.unsqueeze(1) + torch.arange(H, device=x.device)
    columns = lefts.unsqueeze(1) + torch.where(flipped.unsqueeze(1), across.flip(0), across)
    padded = functional.pad(x, [padding] * 4) if padding else x
    places = rows.unsqueeze(2) * (W + 2 * padding) + columns.unsqueeze(1)
    return padded.flatten(2).gather(2, places.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)).view_as(x)


def colour_map(
    brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor, grey: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the linear maps of colour jitter, and the share of each image's mean grey that comes on top.

    Brightness, contrast, saturation, hue and greying in this order are one map of (R, G, B), as nothing is clipped:
    `x' = A x + b mean(grey(x))`, and grey is an eigenvector of saturation and hue.

    Args:
        brightness: factor of all, (B,).
        contrast: factor of the distance to the image's mean grey, (B,).
        saturation: factor of the distance to each pixel's own grey, (B,).
        hue: angle about the grey axis in the YIQ plane, in turns, (B,).
        grey: whether the image loses its colours, (B,) bool.

    Returns:
        `A` (B, 3, 3) and `b` (B,).
    """
    yiq = _YIQ.to(brightness)
    turn = hue * (2.0 * math.pi)
    chroma = torch.where(grey, 0.0, saturation)
    cos, sin = chroma * turn.cos(), chroma * turn.sin()
    inner = torch.zeros(len(hue), 3, 3, device=hue.device, dtype=hue.dtype)
    inner[:, 0, 0] = 1.0
    inner[:, 1, 1] = inner[:, 2, 2] = cos
    inner[:, 1, 2], inner[:, 2, 1] = -sin, sin
    A = torch.linalg.inv(yiq) @ inner @ yiq
    return A * (brightness * contrast).view(-1, 1, 1), (1.0 - contrast) * brightness


def blur_(x: Tensor, sigma: Tensor) -> Tensor:
    """Blurs each image in place by a Gaussian of 3 x 3 pixels, mirrored at the border without repeating it.

    Args:
        x: images (B, C, H, W), contiguous; of one row or column they stay as they are in that direction.
        sigma: standard deviations in pixels, (B,) >= 0; 0 leaves an image bit for bit.
    """
    tail = torch.where(sigma > 0, torch.exp(-0.5 / sigma.clamp_min(1e-6).square()), 0.0)
    side = (tail / (1.0 + 2.0 * tail)).view(-1, 1, 1, 1)
    for dim in (2, 3):
        n = x.shape[dim]
        if n < 2:
            continue
        old = x.clone()
        x.mul_(1.0 - 2.0 * side)
        x.narrow(dim, 1, n - 1).addcmul_(old.narrow(dim, 0, n - 1), side)
        x.narrow(dim, 0, n - 1).addcmul_(old.narrow(dim, 1, n - 1), side)
        x.narrow(dim, 0, 1).addcmul_(old.narrow(dim, 1, 1), side)
        x.narrow(dim, n - 1, 1).addcmul_(old.narrow(dim, n - 2, 1), side)
    return x


@dataclass(frozen=True)
class ImageViews:
    """Crop, flip, colour jitter, greying and blur of images (B, C, H, W), the views of DualNet's code.

    Images of other than 3 channels have brightness and contrast only. Values are not clipped, so that it works on
    normalised images too; brightness then scales about the mean of the data.

    Attributes:
        padding: zeros around an image that windows are cropped from.
        flip: probability.
        jitter: probability of the four colour changes together.
        brightness: its factor is uniform in 1 -+ this; contrast and saturation likewise.
        contrast: see brightness.
        saturation: see brightness.
        hue: its angle is uniform in -+ this, in turns.
        grey: probability.
        blur: probability, in the first and in the second view.
        sigma: range of the blur's standard deviation, in pixels.
    """

    padding: int = 4
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey: float = 0.2
    blur: tuple[float, float] = (1.0, 0.1)
    sigma: tuple[float, float] = (0.1, 2.0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns two views of the images `x`, each (B, C, H, W)."""
        return self._view(x, generator, self.blur[0]), self._view(x, generator, self.blur[1])

    @torch.no_grad()
    def _view(self, x: Tensor, generator: torch.Generator, blur: float) -> Tensor:
        u = torch.rand(11, len(x), generator=generator).to(x.device)
        tops, lefts = (u[:2] * (2 * self.padding + 1)).long().clamp_max(2 * self.padding)
        view = crop_and_flip(x, tops, lefts, u[2] < self.flip, self.padding)
        changed = u[3] < self.jitter
        spans = (self.brightness, self.contrast, self.saturation, self.hue)
        centres = (1.0, 1.0, 1.0, 0.0)
        shifts = [(2.0 * u[4 + i] - 1.0) * span for i, span in enumerate(spans)]
        b, c, s, h = (
            torch.where(changed, shift + centre, centre) for shift, centre in zip(shifts, centres, strict=True)
        )
        view = self._coloured(view, b, c, s, h, u[8] < self.grey)
        low, high = self.sigma
        return blur_(view, torch.where(u[9] < blur, low + (high - low) * u[10], 0.0))

    @staticmethod
    def _coloured(x: Tensor, b: Tensor, c: Tensor, s: Tensor, h: Tensor, grey: Tensor) -> Tensor:
        means = x.mean((2, 3))
        if x.shape[1] != 3:
            shift = ((1.0 - c) * b * means.mean(1)).view(-1, 1, 1, 1)
            return x.mul_((b * c).view(-1, 1, 1, 1)).add_(shift)
        A, share = colour_map(b, c, s, h, grey)
        shift = share * (means @ means.new_tensor(_GREY))
        return torch.baddbmm(shift.view(-1, 1, 1), A.to(x), x.flatten(2)).view_as(x)


@dataclass(frozen=True)
class CorruptedViews:
    """Views of samples that are no images, (B, D): entries replaced by other samples' (SCARF, Bahri et al. 2022).

    Attributes:
        rate: probability that an entry is replaced by the same entry of a random sample of the batch, in both views;
            SCARF replaces 0.6 in one of them.
    """

    rate: float = 0.3

    @torch.no_grad()
    def __call__(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns two views of `x`, each (B, ...)."""
        first, second = (self._view(x, generator) for _ in range(2))
        return first, second

    def _view(self, x: Tensor, generator: torch.Generator) -> Tensor:
        flat = x.flatten(1)
        replaced = (torch.rand(flat.shape, generator=generator) < self.rate).to(x.device)
        donors = torch.randint(len(x), flat.shape, generator=generator).to(x.device)
        return torch.where(replaced, flat.gather(0, donors), flat).view_as(x)


def two_views(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns two views of a batch: `ImageViews` of images (B, C, H, W), `CorruptedViews` of anything else."""
    views: Views = ImageViews() if x.dim() == 4 else CorruptedViews()
    return views(x, generator)
