"""Titles and keys: they fit the page, lose no word, and break where a reader expects it."""

from itertools import pairwise

from cl_ext.report.drawing import style
from cl_ext.report.drawing.key import Sample, draw_key, key_height, spread_words
from cl_ext.report.drawing.rank_diagram import rank_diagram

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report import legible

words = st.lists(st.text("abcWM-_(,", min_size=1, max_size=30), min_size=1, max_size=12)


@given(words, st.floats(1.0, 7.2))
def test_lines_of_a_title_fit_and_keep_every_letter(given_words, width):
    lines = style.wrapped(" ".join(given_words), width).splitlines()
    assert all(style.text_width(line, style.TEXT) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(given_words)


def test_a_title_breaks_at_spaces_and_uses_its_width():
    title = "Final accuracy, a study, class-incremental (split mnist)"
    for width in (1.2, 1.8, 2.4, 3.4):
        lines = style.wrapped(title, width).splitlines()
        assert " ".join(lines) == title  # never inside class-incremental
        following = [f"{line} {after.split()[0]}" for line, after in pairwise(lines)]
        assert all(style.text_width(longer, style.TEXT) > width for longer in following)


@pytest.mark.parametrize("width", [3.5, 7.2])
def test_a_key_has_the_rows_it_needs_and_stays_on_the_page(width):
    samples = [Sample(f"entry {number} of a key that is long", marker="o") for number in range(6)]
    samples += [Sample("w" * 200, shaded=True)]
    assert key_height([], width) == 0
    assert key_height(samples[:1], width) == pytest.approx(0.125)
    with style.house_style():
        page = style.Page(figsize=(width, 2.0))
        axis = page.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        axis.set(xlim=(0, width), ylim=(0, 2))
        draw_key(axis, samples, width, 1.9)
        assert len({text.get_position()[1] for text in axis.texts}) == round(key_height(samples, width) / 0.125)
        assert legible.faults(page) == []


def test_what_a_band_is():
    assert spread_words([1, 1]) == spread_words([]) == ""
    assert spread_words([1, 3]) == "least to greatest seed"
    assert spread_words([5, 20]) == "95 % interval of the mean"
    assert spread_words([4, 5]) == "95 % interval of the mean, range below 5 seeds"


def test_a_critical_difference_beyond_the_axis_says_so():
    ranks = {"er": 1.2, "lwf": 2.0, "si": 2.8}
    for difference, said in ((0.5, "CD 0.50"), (9.0, "CD 9.00 (longer than the axis)")):
        for width in style.WIDTHS.values():
            with style.house_style():
                page = rank_diagram(ranks, difference, "t", width)
            assert said in {text.get_text() for text in page.axes[0].texts}
            assert legible.faults(page) == []


def test_file_names_keep_letters_of_any_script() -> None:
    assert style.slug("split_mnist", "class", "Stream 2") == "split-mnist-class-stream-2"
    assert style.slug("学习", "class") != style.slug("研究", "class")
