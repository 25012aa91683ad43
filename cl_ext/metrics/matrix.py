"""Measures on the accuracy matrix: one pure function each, named and defined after its paper.

Notation, everywhere in this package. ``T`` is the number of experiences. ``R`` has shape ``(T + 1, T)``: row 0 is the
untrained network, row ``i`` (1..T) the network after experience ``i``; column ``j`` (1..T in the formulas) holds the
accuracy on the test data of experience ``j``, a fraction in [0, 1]. ``b = R[0]``. An entry is NaN where undefined, and
a measure that needs an undefined entry is NaN: never 0, never a mean over what happens to be there.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def as_matrix(R: ArrayLike) -> FloatArray:
    """The accuracy matrix as a float array, checked.

    Args:
        R: accuracy matrix of shape (T + 1, T), fractions in [0, 1]; NaN or None where undefined.

    Returns:
        A float64 array of shape (T + 1, T), NaN where undefined.

    Raises:
        ValueError: not of shape (T + 1, T) with T >= 1, not numbers, or a value outside [0, 1] (a percentage, say).
    """
    try:
        matrix = np.asarray(R, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the accuracy matrix must be a rectangular array of numbers: {error}") from error
    if matrix.ndim != 2 or matrix.shape[1] < 1 or matrix.shape[0] != matrix.shape[1] + 1:
        raise ValueError(
            f"the accuracy matrix must have shape (T + 1, T), row 0 the untrained network; got {matrix.shape}"
        )
    if np.any((matrix < 0) | (matrix > 1)):
        raise ValueError("accuracies are fractions in [0, 1]; the accuracy matrix has values outside")
    return matrix


def accuracy_over_stream(R: ArrayLike) -> FloatArray:
    """Mean accuracy on the experiences seen so far, after each experience.

    ``A_i = 1/i * sum_{j<=i} R[i, j]`` for i = 1..T (Chaudhry et al. 2018, "average accuracy" at i).

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.

    Returns:
        (T,) fractions; entry i - 1 is A_i, NaN where row i is undefined on an experience seen by then.
    """
    trained = as_matrix(R)[1:]
    seen = np.tri(len(trained), dtype=bool)
    return np.where(seen, trained, 0.0).sum(axis=1) / seen.sum(axis=1)


def average_accuracy(R: ArrayLike) -> float:
    """Final average accuracy ACC of Lopez-Paz and Ranzato 2017 (GEM): ``1/T * sum_j R[T, j]``.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.

    Returns:
        A fraction in [0, 1]; NaN if the last row has an undefined entry.
    """
    return float(as_matrix(R)[-1].mean())


def average_incremental_accuracy(R: ArrayLike) -> float:
    """Average incremental accuracy of Rebuffi et al. 2017 (iCaRL): ``1/T * sum_i (1/i * sum_{j<=i} R[i, j])``.

    Every experience weighs the same in a step, whatever the size of its test set.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.

    Returns:
        A fraction in [0, 1]; NaN if a row is undefined on an experience seen by then (joint training).
    """
    return float(accuracy_over_stream(R).mean())


def learning_accuracy(R: ArrayLike) -> float:
    """Learning accuracy LA of Riemer et al. 2019 (MER): ``1/T * sum_i R[i, i]``.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.

    Returns:
        A fraction in [0, 1].
    """
    return float(np.diagonal(as_matrix(R)[1:]).mean())


def backward_transfer(R: ArrayLike) -> float:
    """Backward transfer BWT of Lopez-Paz and Ranzato 2017 (GEM): ``1/(T-1) * sum_{i<T} (R[T, i] - R[i, i])``.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.

    Returns:
        A number in [-1, 1], negative where the network forgets; NaN for T = 1.
    """
    trained = as_matrix(R)[1:]
    if len(trained) < 2:
        return float("nan")
    return float((trained[-1] - np.diagonal(trained))[:-1].mean())


def backward_transfer_pairs(R: ArrayLike) -> float:
    """Backward transfer over all pairs, Díaz-Rodríguez et al. 2018: the mean of ``R[i, j] - R[j, j]`` over all i > j.

    Where `backward_transfer` looks at the end of the stream only, this one looks at every experience after j.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.

    Returns:
        A number in [-1, 1]; NaN for T = 1.
    """
    trained = as_matrix(R)[1:]
    if len(trained) < 2:
        return float("nan")
    later = np.tri(len(trained), k=-1, dtype=bool)
    return float((trained - np.diagonal(trained))[later].mean())


def remembering(R: ArrayLike) -> float:
    """Remembering REM of Díaz-Rodríguez et al. 2018: ``1 - abs(min(BWT, 0))``, BWT over all pairs i > j.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.

    Returns:
        A fraction in [0, 1], 1 where nothing is forgotten; NaN for T = 1.
    """
    return float(1.0 - abs(np.minimum(backward_transfer_pairs(R), 0.0)))


def positive_backward_transfer(R: ArrayLike) -> float:
    """Positive backward transfer BWT+ of Díaz-Rodríguez et al. 2018: ``max(BWT, 0)``, BWT over all pairs i > j.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.

    Returns:
        A fraction in [0, 1]; NaN for T = 1.
    """
    return float(np.maximum(backward_transfer_pairs(R), 0.0))


def forward_transfer(R: ArrayLike) -> float:
    """Forward transfer FWT of Lopez-Paz and Ranzato 2017 (GEM): ``1/(T-1) * sum_{i>=2} (R[i-1, i] - b[i])``.

    ``b`` is row 0, this very network untrained.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.

    Returns:
        A number in [-1, 1]; NaN for T = 1, and where accuracies on later experiences are undefined (a growing head).
    """
    matrix = as_matrix(R)
    if matrix.shape[1] < 2:
        return float("nan")
    # One above the diagonal of the trained rows: R[i - 1, i] for i = 2..T.
    return float((np.diagonal(matrix[1:], offset=1) - matrix[0, 1:]).mean())


def forgetting_per_experience(R: ArrayLike) -> FloatArray:
    """Forgetting of each experience but the last, at the end of the stream (Chaudhry et al. 2018, RWalk).

    ``f_j = max_{l in 1..T-1} R[l, j] - R[T, j]`` for j = 1..T-1. The maximum leaves out the last row, so that f_j is
    negative where the last experience helped, and the untrained network. Rows l < j, before experience j, belong to
    the maximum where they are defined; where they are not (a growing head), it runs over the others.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.

    Returns:
        (T - 1,) numbers in [-1, 1], NaN where an accuracy on j after learning j is undefined; empty for T = 1.
    """
    trained = as_matrix(R)[1:]
    earlier, last = trained[:-1, :-1], trained[-1, :-1]
    if not last.size:
        return last
    not_yet_learned = ~np.tri(len(earlier), dtype=bool)
    best = np.where(not_yet_learned & np.isnan(earlier), -np.inf, earlier).max(axis=0)
    return best - last


def forgetting(R: ArrayLike) -> float:
    """Forgetting F of Chaudhry et al. 2018 (RWalk): ``1/(T-1) * sum_{j<T} (max_{l in 1..T-1} R[l, j] - R[T, j])``.

    Neither first minus last (that is -BWT, which Avalanche calls forgetting), nor a maximum that includes the last row.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.

    Returns:
        A number in [-1, 1]; NaN for T = 1.
    """
    each = forgetting_per_experience(R)
    return float(each.mean()) if each.size else float("nan")


def intransigence_per_experience(R: ArrayLike, reference: ArrayLike) -> FloatArray:
    """Intransigence at each experience (Chaudhry et al. 2018, RWalk): ``I_k = a*_k - R[k, k]`` for k = 1..T.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.
        reference: a*, (T,) fractions: ``a*_k`` is the accuracy on experience k of a fresh network trained on all data
            of experiences 1..k together, the diagonal below row 0 of the reference row `joint_incremental`.

    Returns:
        (T,) numbers in [-1, 1], negative where learning in sequence beat the reference.

    Raises:
        ValueError: the reference is not of shape (T,) or has values outside [0, 1].
    """
    trained = as_matrix(R)[1:]
    best = np.asarray(reference, dtype=np.float64)
    if best.shape != (len(trained),):
        raise ValueError(f"the reference a* must have shape (T,) = ({len(trained)},); got {best.shape}")
    if np.any((best < 0) | (best > 1)):
        raise ValueError("accuracies are fractions in [0, 1]; the reference a* has values outside")
    return best - np.diagonal(trained)


def intransigence(R: ArrayLike, reference: ArrayLike) -> float:
    """Intransigence of Chaudhry et al. 2018 (RWalk) at the end of the stream: ``I_T = a*_T - R[T, T]``.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.
        reference: a*, (T,) fractions, as in `intransigence_per_experience`.

    Returns:
        A number in [-1, 1]; NaN where either accuracy is undefined.
    """
    return float(intransigence_per_experience(R, reference)[-1])
