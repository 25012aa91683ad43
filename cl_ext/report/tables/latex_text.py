"""Plain text as LaTeX source."""

import re

_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
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
    "\N{GREEK SMALL LETTER ALPHA}": r"$\alpha$",
    "\N{GREEK SMALL LETTER BETA}": r"$\beta$",
    "\N{GREEK SMALL LETTER GAMMA}": r"$\gamma$",
    "\N{GREEK SMALL LETTER LAMDA}": r"$\lambda$",
    "\N{GREEK SMALL LETTER SIGMA}": r"$\sigma$",
    "\N{GREEK SMALL LETTER TAU}": r"$\tau$",
}
_SIGNS = str.maketrans(_SPECIAL | _UNICODE)
_LAST_LETTER = 0x17F
"""The end of Latin Extended-A, whose letters a stock LaTeX sets from UTF-8."""


def tex(text: str) -> str:
    """Text with LaTeX's special characters escaped; a sign that a stock LaTeX lacks stands as its code point.

    Args:
        text: one line of plain text.
    """
    # Two hyphens would become a dash; the NUL keeps them apart until braces are escaped.
    shown = re.sub("-(?=-)", "-\0", text).translate(_SIGNS).replace("\0", "{}")
    return "".join(sign if ord(sign) <= _LAST_LETTER else f"[U+{ord(sign):04X}]" for sign in shown)
