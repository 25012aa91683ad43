"""Figures as they stand in the HTML page: PNG with a palette, as data URIs, within a bound on the page's size."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

WIDTHS = (1600, 1200, 900, 650)
"""Pixels across; the widest with which all figures fit is taken."""
MOST_BYTES = 9_000_000
"""Of all figures together, before base64 makes a third more of them."""


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        title: its kind, and its number where there are several.
        caption: what it shows; "" where nobody says.
        source: a data URI; "" where it did not fit.
        alt: what stands in its place.
        width: in pixels.
        height: in pixels.
    """

    title: str
    caption: str
    source: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Group:
    """Figures under one head."""

    title: str
    figures: list[Figure]


def embedded_figures(
    files: Sequence[Path],
    most_bytes: int = MOST_BYTES,
    captions: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
) -> list[Group]:
    """PNG files as data URIs, those of one board under one head.

    Args:
        files: in the order in which they are shown; those that are no PNG are passed over. A name is the board's,
            the kind, and a number where there are several: `digits-class-matrix-2.png`.
        most_bytes: of all together; figures are drawn smaller until they fit, and the last ones are named only where
            even the smallest do not.
        captions: kind -> what it shows; `across-<kind>` before `<kind>` for figures over boards.
        titles: a board's part of the name -> its title.
    """
    paths = [path for path in files if path.suffix == ".png"]
    left = most_bytes
    widest = _width(paths, most_bytes)
    groups: dict[str, list[Figure]] = {}
    for path in paths:
        board, kind, number = _parts(path.stem)
        over = f"across-{kind}" if board.startswith("across-") else kind
        title, caption = f"{kind} {number}".strip(), (captions or {}).get(over, "")
        data, size = _small_png(path, widest)
        source, alt = "", f"This page has no room for it: see figures/{path.name}."
        if len(data) <= left:
            left -= len(data)
            source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
            alt = f"{title} of {board or 'all'}: {caption}" if caption else f"{title} of {board or 'all'}"
        head = (titles or {}).get(board, board.replace("-", " "))
        groups.setdefault(head, []).append(Figure(title, caption, source, alt, *size))
    return [Group(head, figures) for head, figures in groups.items()]


def _parts(stem: str) -> tuple[str, str, str]:
    """A file's name as the board's part, the kind and the number, "" where there is none."""
    parts = stem.split("-")
    number = parts.pop() if len(parts) > 1 and parts[-1].isdigit() else ""
    return "-".join(parts[:-1]), parts[-1], number


def _width(paths: Sequence[Path], most_bytes: int) -> int:
    """The widest of `WIDTHS` at which the files should fit; bytes go about as the area."""
    for width in WIDTHS:
        expected = 0.0
        for path in paths:
            with Image.open(path) as image:
                expected += 0.6 * path.stat().st_size * min(1.0, width / image.width) ** 2
        if expected <= most_bytes:
            return width
    return WIDTHS[-1]


def _small_png(path: Path, width: int) -> tuple[bytes, tuple[int, int]]:
    """A PNG of at most this width and 256 colours, and its size."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, "PNG")
    return out.getvalue(), picture.size
