"""Continual-learning measures as pure functions of the stored accuracies; needs neither torch nor Avalanche."""

from cl_ext.metrics.anytime import (
    accuracy_at_instants,
    average_anytime_accuracy,
    learning_curve_area,
    min_accuracy,
    windowed_forgetting,
    windowed_plasticity,
    worst_case_accuracy,
)
from cl_ext.metrics.matrix import (
    accuracy_over_stream,
    as_matrix,
    average_accuracy,
    average_incremental_accuracy,
    backward_transfer,
    backward_transfer_pairs,
    forgetting,
    forgetting_per_experience,
    forward_transfer,
    intransigence,
    intransigence_per_experience,
    learning_accuracy,
    positive_backward_transfer,
    remembering,
)
from cl_ext.metrics.table import METRICS, Metric

__all__ = [
    "METRICS",
    "Metric",
    "accuracy_at_instants",
    "accuracy_over_stream",
    "as_matrix",
    "average_accuracy",
    "average_anytime_accuracy",
    "average_incremental_accuracy",
    "backward_transfer",
    "backward_transfer_pairs",
    "forgetting",
    "forgetting_per_experience",
    "forward_transfer",
    "intransigence",
    "intransigence_per_experience",
    "learning_accuracy",
    "learning_curve_area",
    "min_accuracy",
    "positive_backward_transfer",
    "remembering",
    "windowed_forgetting",
    "windowed_plasticity",
    "worst_case_accuracy",
]
