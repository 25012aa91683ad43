"""The table of measures: the leaderboard and the documentation take titles, formulas and sources from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cl_ext.metrics import anytime, matrix


@dataclass(frozen=True)
class Metric:
    """One measure of a run.

    Attributes:
        name: its column in the tidy frame.
        function: computes it from the arrays that `inputs` names.
        inputs: what the function takes, in order: "R", "reference", "curve", "experience", "iteration".
        title: the head of its column in a table.
        formula: its definition as plain text, in the symbols of `cl_ext.metrics.matrix` and `cl_ext.metrics.anytime`.
        source: the paper that defined it.
        range: the least and the greatest value.
        higher_is_better: the direction in which a method wins.
        ends: whether the end of each experience counts as an instant of the curve where the evaluation plan has none.
    """

    name: str
    function: Callable[..., float]
    inputs: tuple[str, ...]
    title: str
    formula: str
    source: str
    range: tuple[float, float]
    higher_is_better: bool
    ends: bool = False


_MATRIX, _CURVE = ("R",), ("curve", "experience")

_ROWS = (
    Metric(
        "accuracy",
        matrix.average_accuracy,
        _MATRIX,
        "ACC",
        "1/T * sum_j R[T, j]",
        "Lopez-Paz and Ranzato 2017 (GEM)",
        (0.0, 1.0),
        higher_is_better=True,
    ),
    Metric(
        "average_incremental_accuracy",
        matrix.average_incremental_accuracy,
        _MATRIX,
        "Avg. inc. ACC",
        "1/T * sum_i (1/i * sum_{j<=i} R[i, j])",
        "Rebuffi et al. 2017 (iCaRL)",
        (0.0, 1.0),
        higher_is_better=True,
    ),
    Metric(
        "forgetting",
        matrix.forgetting,
        _MATRIX,
        "Forgetting",
        "1/(T-1) * sum_{j<T} (max_{l in 1..T-1} R[l, j] - R[T, j])",
        "Chaudhry et al. 2018 (RWalk)",
        (-1.0, 1.0),
        higher_is_better=False,
    ),
    Metric(
        "bwt",
        matrix.backward_transfer,
        _MATRIX,
        "BWT",
        "1/(T-1) * sum_{i<T} (R[T, i] - R[i, i])",
        "Lopez-Paz and Ranzato 2017 (GEM)",
        (-1.0, 1.0),
        higher_is_better=True,
    ),
    Metric(
        "fwt",
        matrix.forward_transfer,
        _MATRIX,
        "FWT",
        "1/(T-1) * sum_{i>=2} (R[i-1, i] - R[0, i])",
        "Lopez-Paz and Ranzato 2017 (GEM)",
        (-1.0, 1.0),
        higher_is_better=True,
    ),
    Metric(
        "learning_accuracy",
        matrix.learning_accuracy,
        _MATRIX,
        "LA",
        "1/T * sum_i R[i, i]",
        "Riemer et al. 2019 (MER)",
        (0.0, 1.0),
        higher_is_better=True,
    ),
    Metric(
        "intransigence",
        matrix.intransigence,
        ("R", "reference"),
        "Intransigence",
        "a*_T - R[T, T]",
        "Chaudhry et al. 2018 (RWalk)",
        (-1.0, 1.0),
        higher_is_better=False,
    ),
    Metric(
        "average_anytime_accuracy",
        anytime.average_anytime_accuracy,
        _CURVE,
        "AAA",
        "1/N * sum_n (mean_{j seen at n} curve[n, j])",
        "Caccia et al. 2022 (ER-ACE)",
        (0.0, 1.0),
        higher_is_better=True,
    ),
    Metric(
        "min_accuracy",
        anytime.min_accuracy,
        _CURVE,
        "min-ACC",
        "1/(k-1) * sum_{j<k} (min_{n after j ended} curve[n, j])",
        "De Lange et al. 2023",
        (0.0, 1.0),
        higher_is_better=True,
        ends=True,
    ),
    Metric(
        "worst_case_accuracy",
        anytime.worst_case_accuracy,
        _CURVE,
        "WC-ACC",
        "1/k * curve[N, k] + (1 - 1/k) * min-ACC",
        "De Lange et al. 2023",
        (0.0, 1.0),
        higher_is_better=True,
        ends=True,
    ),
    Metric(
        "remembering",
        matrix.remembering,
        _MATRIX,
        "REM",
        "1 - abs(min(BWT, 0)), BWT = 2/(T(T-1)) * sum_{i>j} (R[i, j] - R[j, j])",
        "Díaz-Rodríguez et al. 2018",
        (0.0, 1.0),
        higher_is_better=True,
    ),
    Metric(
        "positive_backward_transfer",
        matrix.positive_backward_transfer,
        _MATRIX,
        "BWT+",
        "max(BWT, 0), BWT = 2/(T(T-1)) * sum_{i>j} (R[i, j] - R[j, j])",
        "Díaz-Rodríguez et al. 2018",
        (0.0, 1.0),
        higher_is_better=True,
    ),
    Metric(
        "windowed_forgetting",
        anytime.windowed_forgetting,
        _CURVE,
        f"WF^{anytime.WINDOW}",
        "1/k * sum_{j<=k} max_{n <= m < n + w} (curve[n, j] - curve[m, j]), j begun at n",
        "De Lange et al. 2023",
        (0.0, 1.0),
        higher_is_better=False,
    ),
    Metric(
        "windowed_plasticity",
        anytime.windowed_plasticity,
        _CURVE,
        f"WP^{anytime.WINDOW}",
        "1/k * sum_{j<=k} max_{n <= m < n + w} (curve[m, j] - curve[n, j]), j begun at n",
        "De Lange et al. 2023",
        (0.0, 1.0),
        higher_is_better=True,
    ),
    Metric(
        "learning_curve_area",
        anytime.learning_curve_area,
        ("R", "curve", "experience", "iteration"),
        f"LCA_{anytime.SHOTS}",
        "1/(beta+1) * sum_{b=0..beta} (1/T * sum_k a[k, b]), a[k, b] on k after b batches of k",
        "Chaudhry et al. 2019 (A-GEM)",
        (0.0, 1.0),
        higher_is_better=True,
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ROWS}
