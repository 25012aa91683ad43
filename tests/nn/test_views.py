"""The views, image by image and pixel by pixel; who draws the random numbers."""

import cl_ext  # noqa: F401
from cl_ext.nn.views import CorruptedViews, ImageViews, blur_, colour_map, crop_and_flip, two_views

import pytest
import torch
from torch import Tensor
from torch.nn import functional


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(B: int = 6, C: int = 3, H: int = 7, W: int = 5) -> Tensor:
    return torch.rand(B, C, H, W, generator=_generator(), dtype=torch.float64)


def test_crops_and_flips_one_by_one() -> None:
    x, padding = _images(), 2
    tops, lefts = torch.tensor([0, 1, 2, 3, 4, 2]), torch.tensor([4, 3, 2, 1, 0, 2])
    flipped = torch.tensor([False, True, False, True, True, False])
    out = crop_and_flip(x, tops, lefts, flipped, padding)
    for image, top, left, flip, result in zip(x, tops, lefts, flipped, out, strict=True):
        padded = functional.pad(image, (padding,) * 4)
        window = padded[:, top : top + 7, left : left + 5]
        assert torch.equal(result, window.flip(2) if flip else window)
    assert torch.equal(out[2], x[2])


def _grey(pixels: Tensor) -> Tensor:
    return (pixels * torch.tensor([0.299, 0.587, 0.114]).double().view(3, 1, 1)).sum(0)


def _turned(pixels: Tensor, turns: float) -> Tensor:
    """The hue of one image, through YIQ and back."""
    to = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]).double()
    y, i, q = torch.einsum("ab,bhw->ahw", to, pixels)
    angle = torch.tensor(turns * 2 * torch.pi, dtype=torch.float64)
    i, q = i * angle.cos() - q * angle.sin(), i * angle.sin() + q * angle.cos()
    return torch.einsum("ab,bhw->ahw", to.inverse(), torch.stack([y, i, q]))


def test_colours_step_by_step() -> None:
    """Brightness, contrast, saturation, hue and greying, one after the other on each image."""
    x = _images()
    b, c, s, h = torch.rand(4, 6, generator=_generator(1), dtype=torch.float64)
    grey = torch.tensor([False, True, False, False, True, False])
    out = ImageViews._coloured(x.clone(), b, c, s, h, grey)
    for k, image in enumerate(x):
        bright = image * b[k]
        contrasted = c[k] * bright + (1 - c[k]) * _grey(bright).mean()
        saturated = s[k] * contrasted + (1 - s[k]) * _grey(contrasted)
        hued = _turned(saturated, float(h[k]))
        expected = _grey(hued).expand(3, -1, -1) if grey[k] else hued
        assert torch.allclose(out[k], expected, atol=1e-3)  # YIQ's published coefficients have four digits


def test_no_change_is_no_change() -> None:
    one, zero = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    A, share = colour_map(one, one, one, zero, torch.tensor([False, False]))
    assert torch.allclose(A, torch.eye(3).double().expand(2, 3, 3), atol=1e-12)
    assert torch.equal(share, zero)
    x = _images()
    assert torch.equal(blur_(x.clone(), torch.zeros(6)), x)


def test_blur_is_a_convolution_with_mirrored_borders() -> None:
    x = _images()
    sigma = torch.tensor([0.0, 0.1, 0.5, 1.0, 2.0, 9.0])
    out = blur_(x.clone(), sigma)
    for image, s, result in zip(x, sigma.tolist(), out, strict=True):
        taps = torch.tensor([-1.0, 0.0, 1.0]).double()
        kernel = torch.exp(-0.5 * (taps / s) ** 2) if s else (taps == 0).double()
        kernel = kernel / kernel.sum()
        padded = functional.pad(image.unsqueeze(1), (1, 1, 1, 1), mode="reflect")
        expected = functional.conv2d(padded, torch.outer(kernel, kernel).view(1, 1, 3, 3)).squeeze(1)
        assert torch.allclose(result, expected, atol=1e-12)
    assert torch.equal(blur_(torch.ones(1, 1, 1, 1), torch.ones(1)), torch.ones(1, 1, 1, 1))


@pytest.mark.parametrize("C", [1, 2, 3, 4])
def test_views_are_random_by_image_and_leave_the_batch_alone(C: int) -> None:
    x = _images(1, C).float().expand(64, -1, -1, -1).contiguous()
    before, state, generator = x.clone(), torch.get_rng_state(), _generator()
    v1, v2 = two_views(x, generator)
    assert v1.shape == v2.shape == x.shape
    assert torch.equal(x, before)
    assert torch.equal(state, torch.get_rng_state())
    assert len(v1.flatten(1).unique(dim=0)) == 64
    assert not torch.equal(v1, v2)
    again = two_views(x, generator)
    assert not torch.equal(again[0], v1)
    same = two_views(x, _generator())
    assert torch.equal(same[0], v1)
    assert torch.equal(same[1], v2)


@pytest.mark.parametrize(("share", "views"), [(0.5, {"flip": 0.5}), (0.1, {"blur": (0.1, 0.1)}), (0.2, {"grey": 0.2})])
def test_probabilities(share: float, views: dict[str, object]) -> None:
    """Each change alone happens to its share of the images, within four standard deviations."""
    off = {"padding": 0, "flip": 0.0, "jitter": 0.0, "grey": 0.0, "blur": (0.0, 0.0)}
    x = _images(2000, H=4, W=4).float()
    still, _ = ImageViews(**off)(x, _generator())  # type: ignore[arg-type]
    assert torch.allclose(still, x, atol=1e-5)
    view, _ = ImageViews(**off | views)(x, _generator())  # type: ignore[arg-type]
    changed = (view - x).flatten(1).abs().amax(1).gt(1e-4).double().mean()
    assert abs(float(changed) - share) < 4 * (share * (1 - share) / 2000) ** 0.5


def test_windows_are_uniform() -> None:
    """All (2 padding + 1)^2 windows, as often as chance has it: chi-square over its degrees of freedom."""
    x = torch.zeros(9000, 1, 3, 3)
    x[:, :, 1, 1] = 1.0
    plain = ImageViews(padding=1, flip=0.0, jitter=0.0, grey=0.0, blur=(0.0, 0.0))
    view, _ = plain(x, _generator())
    counts = view.flatten(1).argmax(1).bincount(minlength=9).double()
    assert ((counts - 1000) ** 2 / 1000).sum() / 8 < 3.0


def test_corruption_takes_entries_of_the_same_column() -> None:
    x = torch.arange(400).view(100, 4).float()
    v1, v2 = CorruptedViews(0.3)(x, _generator())
    for view in (v1, v2):
        assert torch.equal(view.long() % 4, torch.arange(4).expand(100, 4))
        share = (view != x).double().mean()
        assert abs(float(share) - 0.3 * 0.99) < 4 * (0.3 * 0.7 / 400) ** 0.5
    assert not torch.equal(v1, v2)
    assert torch.equal(CorruptedViews(0.0)(x, _generator())[0], x)
