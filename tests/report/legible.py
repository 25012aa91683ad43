"""Whether a figure can be read: its texts lie on the page and none covers another."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

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
    canvas.draw()
    renderer = canvas.get_renderer()
    page = figure.bbox
    # Of one text, its own box, not that of its arrow.
    boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in texts(figure)]
    wrong = [
        f"{name!r} leaves the page: {box.extents} of {page.extents}" for name, box in boxes if not _inside(box, page)
    ]
    for at, (name, box) in enumerate(boxes):
        for other, another in boxes[:at]:
            common = Bbox.intersection(box, another)
            if common is not None and min(common.width, common.height) > _TOLERANCE:
                wrong.append(f"{name!r} covers {other!r}")
    return wrong


def _inside(box: Bbox, page: Bbox) -> bool:
    return (
        box.x0 >= page.x0 - _TOLERANCE
        and box.y0 >= page.y0 - _TOLERANCE
        and box.x1 <= page.x1 + _TOLERANCE
        and box.y1 <= page.y1 + _TOLERANCE
    )
