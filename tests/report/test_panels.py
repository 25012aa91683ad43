"""Small panels: values stand where their scales say, and pages hold what fits."""

from cl_ext.report.drawing import style
from cl_ext.report.drawing.panels import Band, Line, Panel, columns_for, panel_pages
from cl_ext.report.drawing.scales import Scale, engineering, linear, log_ticks, logarithmic

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PolyCollection

from tests.report import legible


def pages(count: int, width: float = 7.2, **options) -> list[style.Page]:
    x, y = linear("experience", [1, 5], whole=True), linear("accuracy [%]", [0, 100])
    panel = Panel("name", [Line(np.arange(1, 6), np.linspace(0, 100, 5), marker="o")])
    with style.house_style():
        return panel_pages([panel] * count, x, y, "A title", width, **options)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_a_linear_scale_holds_its_values_and_its_ticks(values):
    scale = linear("x", values)
    places = scale.place([*values, *scale.ticks])
    assert ((places >= 0) & (places <= 1)).all()


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=5))
def test_a_logarithmic_scale_holds_its_values_and_its_ticks(values):
    scale = logarithmic("x", [*values, 0.0, np.nan])
    places = scale.place([*values, *scale.ticks])
    assert ((places >= 0) & (places <= 1)).all()
    assert np.isnan(scale.place([0.0, -1.0])).all()
    assert 2 <= len(set(scale.ticks)) <= 6  # one alone says nothing of the distance to another value


@given(st.floats(1e-6, 1e9), st.floats(1.01, 1e12), st.integers(2, 8))
def test_ticks_of_a_logarithmic_axis(low, factor, most):
    ticks = log_ticks(low, low * factor, most)
    assert 2 <= len(ticks) <= most + 1
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= low * factor for tick in ticks)
    if factor > 200:  # two decades and more: round numbers of them
        digits = [tick / 10.0 ** np.floor(np.log10(tick) + 1e-9) for tick in ticks]
        assert all(np.isclose(digit, [1, 2, 3, 5]).any() for digit in digits)


def test_ticks_by_hand():
    assert log_ticks(0.9, 7, 4) == [1, 2, 3, 5]
    assert log_ticks(0.9, 7, 3) == [1, 2, 5]
    assert log_ticks(1e5, 6e6, 4) == [1e5, 3e5, 1e6, 3e6]
    assert log_ticks(1e3, 3e7, 4) == [1e3, 1e5, 1e7]


def test_places_are_shares_of_the_axis():
    np.testing.assert_allclose(Scale("x", 2, 4, ()).place([2, 3, 4]), [0, 0.5, 1])
    np.testing.assert_allclose(Scale("x", 1, 100, (), log=True).place([1, 10, 100]), [0, 0.5, 1])
    assert engineering("B")(20000) == "20 kB"


@pytest.mark.parametrize(("count", "shapes"), [(1, [1]), (5, [5]), (40, [40]), (100, [48, 48, 4])])
def test_pages_hold_what_fits(count, shapes):
    found = pages(count)
    names = [[text for text in page.axes[0].texts if text.get_text() == "name"] for page in found]
    assert [len(each) for each in names] == shapes
    assert all(legible.faults(page) == [] for page in found)
    titles = [page.texts[0].get_text() for page in found]
    assert titles == (["A title"] if len(shapes) == 1 else [f"A title ({n} of {len(shapes)})" for n in (1, 2, 3)])


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("width", [3.5, 7.2])
def test_a_long_name_of_an_axis_stays_below_the_title(count, width):
    panel = Panel("name", [Line(np.arange(2.0), np.arange(2.0))])
    y = linear("accuracy on earlier experiences [%]", [0, 100])
    with style.house_style():
        (page,) = panel_pages([panel] * count, linear("x", [0, 1]), y, "A title\nof two lines", width)
    assert legible.faults(page) == []


def test_no_panels_no_page():
    assert pages(0) == []


@given(st.integers(1, 100), st.sampled_from([3.5, 7.2]))
def test_rows_are_as_equal_as_can_be(panels, width):
    columns = columns_for(panels, width)
    rows = -(-panels // columns)
    assert 1 <= columns <= (6 if width > 3.5 else 3)
    assert columns * rows - panels < rows  # fewer empty places than rows


def test_lines_bands_and_boxes_are_where_they_should_be():
    x, y = Scale("x", 0, 10, (0.0, 10.0)), Scale("y", 0, 1, (0.0, 1.0))
    panel = Panel(
        "name",
        [Line(np.array([0.0, 5.0, 10.0]), np.array([0.0, 0.25, 1.0]))],
        [Band(np.array([0.0, 10.0]), np.array([-1.0, 0.5]), np.array([0.5, 3.0]))],
    )
    with style.house_style():
        (page,) = panel_pages([panel], x, y, "t", 3.5)
    (axis,) = page.axes
    polygons = [each.get_paths() for each in axis.collections if isinstance(each, PolyCollection)]
    (frame,), (shaded,) = polygons
    (left, low), (right, high) = frame.vertices.min(axis=0), frame.vertices.max(axis=0)
    segments = [
        path.vertices for each in axis.collections if isinstance(each, LineCollection) for path in each.get_paths()
    ]
    wanted = [[left, low], [(left + right) / 2, low + 0.25 * (high - low)], [right, high]]
    assert any(segment.shape == (3, 2) and np.allclose(segment, wanted) for segment in segments)
    # A band that leaves the panel ends at its edge.
    assert shaded.vertices[:, 1].min() == pytest.approx(low)
    assert shaded.vertices[:, 1].max() == pytest.approx(high)


def shaded(scale: Scale, low: list[float], high: list[float]) -> list[np.ndarray]:
    """The corners of what one band shades in a panel whose vertical scale is this."""
    panel = Panel("name", bands=[Band(np.arange(len(low)), np.array(low), np.array(high))])
    with style.house_style():
        (page,) = panel_pages([panel], Scale("x", 0, len(low) - 1, ()), scale, "t", 3.5)
    collections = [each for each in page.axes[0].collections if isinstance(each, PolyCollection)]
    return [path.vertices for each in collections[1:] for path in each.get_paths()]  # the first is the frame


def test_a_band_that_reaches_below_0_keeps_its_upper_part_on_a_logarithmic_axis():
    log = Scale("y", 1, 100, (1, 10, 100), log=True)
    (whole,) = shaded(log, [1, 1, 1], [10, 10, 100])
    (cut,) = shaded(log, [-5, 1, 1], [10, 10, 100])
    np.testing.assert_allclose(cut, whole)
    # where nothing is kept there is nothing to shade, and no wedge to the next point
    (part,) = shaded(log, [0, 1, 1], [0, 10, 100])
    left, right = whole[:, 0].min(), whole[:, 0].max()
    assert part[:, 0].min() == pytest.approx((left + right) / 2)


def test_a_band_of_one_seed_is_none():
    nothing = np.full(2, np.nan)
    panel = Panel("name", [Line(np.arange(2.0), np.arange(2.0))], [Band(np.arange(2.0), nothing, nothing)])
    with style.house_style():
        (page,) = panel_pages([panel], Scale("x", 0, 1, ()), Scale("y", 0, 1, ()), "t", 3.5)
    assert sum(isinstance(each, PolyCollection) for each in page.axes[0].collections) == 1  # the frame alone
