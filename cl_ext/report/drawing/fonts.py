"""The font of the figures: DejaVu Sans without what figures never use, since to embed it anew takes long a figure."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib import font_manager

FULL = "DejaVu Sans"
_NAME = "cl_ext Sans"
# Latin, Greek, punctuation, super- and subscripts, arrows, mathematics; other letters come from the full font
_LETTERS = [*range(0x20, 0x180), *range(0x370, 0x400), *range(0x2010, 0x20A0), *range(0x2190, 0x2300)]


@cache
def families() -> list[str]:
    """The fonts in which text is set, the first that has a character; made once a process.

    matplotlib subsets a font whenever a PDF embeds it, and reads all of it to do so. The small font has the same shapes
    and widths and no layout tables.
    """
    options = subset.Options(layout_features=[], drop_tables=["GSUB", "GPOS", "GDEF", "kern", "FFTM", "gasp"])
    options.notdef_outline = True
    with TTFont(font_manager.findfont(FULL), recalcTimestamp=False) as font:
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=_LETTERS)
        cutter.subset(font)
        for record in font["name"].names:
            if record.nameID in (1, 4, 6, 16):
                record.string = _NAME.replace(" ", "") if record.nameID == 6 else _NAME
        folder = Path(tempfile.mkdtemp(prefix="cl_ext-font-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        font.save(folder / "small.ttf")
    font_manager.fontManager.addfont(folder / "small.ttf")
    return [_NAME, FULL]
