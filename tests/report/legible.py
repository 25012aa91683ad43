"""Whether a figure can be read: its texts lie on the page and none covers another."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

_TOLERANCE = 1.0  # pixels at 100 dpi: boxes of text have a margin


def texts(figure: Figure) -> list[Text]:
    """Every text that is drawn: of figures, axes, legends, and the ticks inside the limits."""
    found = [*figure.texts]
    for legend in [*figure.legends, *(axis.get_legend() for axis in figure.axes)]:
        found += [] if legend is None else [*legend.get_texts(), legend.get_title()]
    for axis in figure.axes:
        found += [*axis.texts, axis.title, *(axis.findobj(lambda t, a=axis: t in (a._left_title, a._right_title)))]
        if not axis.axison:
            continue
        for line in (axis.xaxis, axis.yaxis):
            found.append(line.label)
            low, high = sorted(line.get_view_interval())
            ticks = [tick for tick in line.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def faults(figure: Figure) -> list[str]:
    """What is wrong: texts that leave the page, and pairs that overlap."""
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # places are worked out, nothing is painted
    renderer = canvas.get_renderer()
    # Of one text, its own box, not that of its arrow.
    found = texts(figure)
    names = [text.get_text() for text in found]
    boxes = np.array([Text.get_window_extent(text, renderer).extents for text in found]).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, 2:]
    page = np.asarray(figure.bbox.extents)
    beyond = (low < page[:2] - _TOLERANCE).any(axis=1) | (high > page[2:] + _TOLERANCE).any(axis=1)
    wrong = [f"{names[at]!r} leaves the page: {boxes[at]} of {page}" for at in np.flatnonzero(beyond)]
    common = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)  # of each pair: width and height
    pairs = np.argwhere(np.tril((common > _TOLERANCE).all(axis=2), k=-1))
    return wrong + [f"{names[at]!r} covers {names[other]!r}" for at, other in pairs]
