"""Letters beyond ASCII as source that every pdfLaTeX sets: accents, Greek as mathematics, others by sound or name."""
# ruff: noqa: RUF001  (letters that look like others are what the file is about)

import re
import unicodedata
from string import ascii_letters

_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
_BELOW = {"d", "c", "b"}
_LATIN = {
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}",
    "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th",
    "ħ": "h", "Ħ": "H", "ŧ": "t", "Ŧ": "T", "ŋ": "ng", "Ŋ": "Ng", "ĸ": "k", "ƒ": "f", "ə": "e", "⁄": "/",
}  # fmt: skip
_LIKE_LATIN = {
    "Α": "A", "Β": "B", "Ε": "E", "Ζ": "Z", "Η": "H", "Ι": "I", "Κ": "K", "Μ": "M", "Ν": "N", "Ο": "O",
    "Ρ": "P", "Τ": "T", "Χ": "X", "ο": "o",
}  # fmt: skip
"""Greek letters that LaTeX has no command for, because they look like Latin ones."""
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi",
    "ρ": "rho", "ς": "varsigma", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi",
    "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma",
    "Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_CYRILLIC = {
    "а": "a", "б": "b", "в": "v", "г": "g", "д": "d", "е": "e", "ж": "zh", "з": "z", "и": "i", "й": "j",
    "к": "k", "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r", "с": "s", "т": "t", "у": "u",
    "ф": "f", "х": "h", "ц": "c", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "'", "ы": "y", "ь": "'", "э": "e",
    "ю": "yu", "я": "ya", "ё": "yo", "є": "ye", "і": "i", "ї": "yi", "ґ": "g",
}  # fmt: skip
_WITH = re.compile(r"LATIN (SMALL|CAPITAL) LETTER (\w) WITH .*")
_SOUNDS = ("HIRAGANA LETTER ", "KATAKANA LETTER ", "HANGUL SYLLABLE ")


def letter(sign: str) -> str | None:
    """A sign beyond ASCII as LaTeX source of ASCII letters; None where only its name can stand for it.

    Args:
        sign: one character.
    """
    if known := _LATIN.get(sign) or _LIKE_LATIN.get(sign) or _by_script(sign):
        return known
    kind = unicodedata.category(sign)
    if kind[0] in "CM":  # a control character, a mark without its letter
        return " " if kind == "Cc" else ""
    if kind[0] == "Z":
        return " "
    parts = unicodedata.normalize("NFKD", sign)
    if parts == sign:
        latin = _WITH.fullmatch(unicodedata.name(sign, ""))
        return (latin[2].lower() if latin[1] == "SMALL" else latin[2]) if latin else None
    form = unicodedata.decomposition(sign).partition(">")[0]
    base = [part for part in parts if not unicodedata.combining(part)]
    texts = [part if part.isascii() else letter(part) for part in base]
    if any(text is None for text in texts) or not all(part.isalnum() for part in base if part.isascii()):
        return None
    text = "".join(map(str, texts))
    if form in ("<super", "<sub"):
        return rf"\text{form[1:]}script{{{text}}}" if form == "<super" else rf"$_{{{text.replace('$', '')}}}$"
    return _accented(text, parts[1:]) if text in ascii_letters else text


def name_of(sign: str) -> str:
    """A short name for a sign that cannot be set: "alef", "snowman", or its code point."""
    name = unicodedata.name(sign, "")
    if not name or any(digit in name for digit in "0123456789"):
        return f"U+{ord(sign):04X}"
    return name.rpartition("LETTER ")[2].lower()


def _by_script(sign: str) -> str | None:
    """Greek, Cyrillic, kana and Hangul by their sound."""
    if greek := _GREEK.get(sign):
        return rf"$\{greek}$"
    if lower := _CYRILLIC.get(sign.lower()):
        return lower if sign.islower() else lower.capitalize()
    name = unicodedata.name(sign, "")
    return name.split()[-1].lower() if name.startswith(_SOUNDS) else None


def _accented(text: str, marks: str) -> str:
    """A Latin letter below its accents; marks that LaTeX's first encoding lacks are left out."""
    for mark in marks:
        if accent := _ACCENTS.get(mark):
            dotless = text in ("i", "j") and accent not in _BELOW
            text = rf"\{accent}{{{chr(92) + text if dotless else text}}}"
    return text
