"""Plain text as LaTeX source."""

import re
import unicodedata

from cl_ext.report.tables.latex_letters import letter, name_of

_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\`{}",
}
_UNICODE = {
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\le$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\ge$",
    "\N{MINUS SIGN}": "$-$",
    "\N{RIGHTWARDS ARROW}": r"$\to$",
    "\N{INFINITY}": r"$\infty$",
    "\N{EM DASH}": "---",
    "\N{EN DASH}": "--",
    "\N{HORIZONTAL ELLIPSIS}": r"\dots{}",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{DEGREE SIGN}": r"$^\circ$",
    "\N{LEFT SINGLE QUOTATION MARK}": "\\`{}",
    "\N{NOT EQUAL TO}": r"$\ne$",
    "\N{ALMOST EQUAL TO}": r"$\approx$",
    "\N{MIDDLE DOT}": r"$\cdot$",
    "\N{LEFTWARDS ARROW}": r"$\gets$",
    "\N{LEFT RIGHT ARROW}": r"$\leftrightarrow$",
    "\N{SQUARE ROOT}": r"$\surd$",
    "\N{N-ARY SUMMATION}": r"$\Sigma$",
    "\N{PARTIAL DIFFERENTIAL}": r"$\partial$",
    "\N{NABLA}": r"$\nabla$",
    "\N{BULLET}": r"$\bullet$",
    "\N{BLACK STAR}": r"$\star$",
    "\N{NON-BREAKING HYPHEN}": "-",
    "\N{KATAKANA-HIRAGANA PROLONGED SOUND MARK}": "-",
}
_SIGNS = _SPECIAL | _UNICODE
_LIGATURES = ("--", "''")
"""What TeX would join to one sign."""
_BREAKS = re.compile(r"(?<=[,/:;=)])(?=[^\s{}])|(?<=\\_)")
"""Where a name may be broken beside its blanks and hyphens."""
_RUN = 14
"""Letters in a row after which a name may be broken anywhere."""


def tex(text: str) -> str:
    """Text as ASCII source for a stock LaTeX: special characters escaped, other letters as `latex_letters` has them.

    What has only a name stands between brackets: "[snowman]", "[U+6F22 U+5B57]" for the characters of a script that no
    sound can be told of.

    Args:
        text: plain text; a new line counts as a blank.
    """
    shown: list[str] = []
    unknown: list[str] = []
    text = unicodedata.normalize("NFC", text)
    for before, sign in zip("\0" + text, text, strict=False):
        if (source := _source(sign)) is None:
            unknown.append(name_of(sign))
            continue
        shown += _named(unknown)
        shown.append("{}" + source if before + sign in _LIGATURES else source)
    return "".join(shown + _named(unknown))


def name_start(source: str) -> str:
    """The source of a table's first cell, which must not be read as the option of the line break before it."""
    return "{}" + source if source.startswith(("[", "*")) else source


def breakable(source: str) -> str:
    """The source of a name, which may be broken behind underscores, commas and equals signs, and in long words."""
    pieces = re.split(r"(\\[A-Za-z]+|\\.|\$[^$]*\$|[^\w\\$]+)", _BREAKS.sub(r"\\allowbreak ", source))
    long = re.compile(rf"(\w{{{_RUN}}})(?=\w)")
    return "".join(piece if piece.startswith(("\\", "$")) else long.sub(r"\1\\allowbreak ", piece) for piece in pieces)


def label_of(text: str) -> str:
    """Text as a part of a `\\label`: letters, digits, dots and hyphens."""
    plain = re.sub(r"\\textsuperscript|\\([^A-Za-z]|[urHvdcb])(?=\{[\\A-Za-z])|\\(?=[A-Za-z])|[{}$]", "", tex(text))
    return re.sub(r"[^A-Za-z0-9.]+", "-", plain).strip("-")


def _source(sign: str) -> str | None:
    """One character as source; None where only its name can stand for it."""
    if sign in _SIGNS:
        return _SIGNS[sign]
    return sign if sign.isascii() and sign.isprintable() else letter(sign)


def _named(unknown: list[str]) -> list[str]:
    """Names between brackets, which empties the list."""
    said = [f"[{' '.join(unknown)}]"] if unknown else []
    unknown.clear()
    return said
