"""The critical-difference diagram (Demsar 2006): mean ranks on one line, bars under those that are not told apart."""

from collections.abc import Mapping, Sequence

from cl_ext.report.drawing import style

from matplotlib.ticker import MaxNLocator

_LINE = 0.125  # inches a name or a bar takes


def groups(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """The longest runs of ascending ranks that differ by less than the critical difference, two ranks or more.

    Args:
        ranks: (n,) ascending.
        difference: the critical difference.

    Returns:
        First and last index of each run; none lies inside another.
    """
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(at for at, other in enumerate(ranks) if other - rank < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def rank_diagram(ranks: Mapping[str, float], difference: float, title: str, width: float) -> style.Page:
    """Draws the diagram: the better half named at the left, the other at the right.

    Args:
        ranks: mean rank by name, 1 is the best.
        difference: the critical difference.
        title: the page's title.
        width: inches.
    """
    names = sorted(ranks, key=lambda name: (ranks[name], name))
    values = [ranks[name] for name in names]
    bars = groups(values, difference)
    half = -(-len(names) // 2)
    room = min(0.3 * width, 0.1 + max(style.text_width(name, style.SMALL) for name in names))
    head = style.heading_height(title, width)
    line = 0.3 + 0.15  # of the scale, below the title
    below = _LINE * (len(bars) + 1)
    height = head + line + below + _LINE * half + 0.1
    page = style.Page(figsize=(width, height))
    style.heading(page, title)
    axis = page.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.set(xlim=(0, width), ylim=(0, height))
    left, right = room + 0.1, width - room - 0.1
    low, high = 1.0, float(max(len(names), 2))

    def place(rank: float) -> float:
        return left + (right - left) * (rank - low) / (high - low)

    top = height - head - line
    axis.plot([left, right], [top, top], color="black", linewidth=0.8)
    for rank in [low, *(tick for tick in MaxNLocator(10, integer=True).tick_values(low, high) if low < tick <= high)]:
        axis.plot([place(rank)] * 2, [top, top + 0.05], color="black", linewidth=0.6)
        axis.text(place(rank), top + 0.07, f"{rank:.0f}", ha="center", va="bottom", fontsize=style.SMALL - 1)
    end = place(min(low + difference, high))
    axis.plot([left, end], [top + 0.27] * 2, color=style.FRONTIER, linewidth=1.6)
    words = f"CD {difference:.2f}" + (" (longer than the axis)" if low + difference > high else "")
    axis.text(left, top + 0.31, words, va="bottom", fontsize=style.SMALL - 1)
    for level, (first, last) in enumerate(bars, start=1):
        at = top - _LINE * level
        axis.plot([place(values[first]), place(values[last])], [at, at], color=style.METHOD, linewidth=2.0)
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        better = number < half
        row = number if better else len(names) - 1 - number
        at, edge = top - below - _LINE * (row + 0.5), left if better else right
        axis.plot([place(value), place(value), edge], [top, at, at], color="0.5", linewidth=0.5, zorder=1)
        text, size = style.fitted(name, room - 0.05)
        align = "right" if better else "left"
        axis.text(edge - 0.04 if better else edge + 0.04, at, text, ha=align, va="center_baseline", fontsize=size)
    return page
