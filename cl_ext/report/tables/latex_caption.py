"""The caption of a LaTeX table: what is shown, over how many seeds, with what interval, and how values were chosen."""

from cl_ext.report.statistics import FEW_SEEDS
from cl_ext.report.tables.latex_text import tex
from cl_ext.report.tables.texts import board_title, tuning_lines, tuning_notes

import pandas as pd

_MOST_KINDS = 6
"""Rows whose failures a caption names."""
_LONG = 600
"""Letters of tuning protocols from which on they stand below the tables and not in the caption."""


def caption(board: pd.DataFrame) -> str:
    """A board's caption as source."""
    own = board[board["outside"].eq("")]
    tied = own["tier"].eq(1).fillna(False) & ~own["best"]
    sentences = [
        f"{board_title(board)}: mean over seeds ({_counts(own)}) ± half the width of the 95 % Student-t interval;",
        "measures of accuracy in per cent.",
        "Bold: best mean of a column, references (italics) and incomplete rows aside.",
        "Underlined: of one tier with the best ACC." if tied.any() else "",
        next((text for text in own["tier_note"] if text), ""),
        *_gaps(own),
        f"Rows with n < {FEW_SEEDS} have too few seeds for the interval to be relied upon."
        if own.loc[own["n"] > 0, "n"].lt(FEW_SEEDS).any()
        else "",
        "Rows with a source are results of others, compared with none." if board["outside"].ne("").any() else "",
        _tuning(board),
    ]
    return tex(" ".join(sentence for sentence in sentences if sentence))


def tuning_below(board: pd.DataFrame) -> str:
    """The tuning protocols that are too long for the caption, as a paragraph; "" where the caption has them."""
    said = _protocols(board)
    return rf"\paragraph{{Tuning, {tex(board_title(board))}.}}" + "\n" + tex(said) if len(said) > _LONG else ""


def _protocols(board: pd.DataFrame) -> str:
    return " ".join(tuning_lines(tuning_notes(board)))


def _tuning(board: pd.DataFrame) -> str:
    said = _protocols(board)
    if not said:
        return "Tuning: the study does not say how hyper-parameters were chosen."
    if len(said) > _LONG:
        return "Tuning: configurations tried, and how, as listed below the tables; a dash: the study does not say."
    return f"Tuning: configurations tried, and how: {said} A dash: the study does not say."


def _counts(own: pd.DataFrame) -> str:
    """ "n = 5", "n = 3 to 5"."""
    finished = own.loc[own["n"] > 0, "n"]
    if finished.empty:
        return "no seeds"
    least, most = finished.min(), finished.max()
    return f"n = {least}" + (f" to {most}" if most != least else "")


def _gaps(own: pd.DataFrame) -> list[str]:
    """What failed and what is missing."""
    sentences = []
    if failed := int((own["cells"] - own["n"]).sum()):
        kinds = [f"{label}: {what}" for label, what in own[["label", "failures"]].to_numpy() if what]
        named = ", ".join(kinds[:_MOST_KINDS])
        more = f", and {len(kinds) - _MOST_KINDS} more rows" if len(kinds) > _MOST_KINDS else ""
        sentences.append(
            f"{failed} of {own['cells'].sum()} cells failed and are left out of the means ({named}{more})."
        )
    if gaps := int((own["asked"] - own["cells"])[own["absent"].ne("not possible")].sum()):
        sentences.append(f"{gaps} cell{'s are' if gaps > 1 else ' is'} missing.")
    return sentences
