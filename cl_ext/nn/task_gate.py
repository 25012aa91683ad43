"""Which task a sample belongs to: an under-complete auto-encoder a task, asked sample by sample (Aljundi et al. 2017).

Symbols: `F` (N, D) features, `W` (C, D) and `b` (C,) an encoder, `V` (D, C) and `d` (D,) a decoder, `Er` the squared
error of a sample's reconstruction, summed over its features.
"""

from typing import Literal, NamedTuple

from cl_ext.nn.shelf import Shelf

import torch
from torch import Tensor, nn
from torch.nn import functional

GateForm = Literal["sigmoid", "linear", "pca"]
"""F and its reconstruction through a sigmoid, ReLU codes, cross-entropy (the paper's); all linear, squared error; or
the optimum of that in closed form, the principal subspace."""
_INPUTS = 15
"""Weights that are not zero in a row of a sparse initialisation (Martens 2010)."""


class GateCode(NamedTuple):
    """An auto-encoder: `W` (C, D), `b` (C,), `V` (D, C), `d` (D,)."""

    weight: Tensor
    bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor

    @classmethod
    def drawn(cls, features: int, code_size: int, generator: torch.Generator, like: Tensor) -> "GateCode":
        """A sparse one: 15 weights from N(0, 1) in each row, biases of 0; type and device are those of `like`."""
        weight = _sparse(code_size, features, generator)
        decoder = _sparse(features, code_size, generator)
        parts = (weight, torch.zeros(code_size), decoder, torch.zeros(features))
        return cls(*(part.to(like) for part in parts))


def _sparse(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    kept = min(_INPUTS, columns)
    chosen = torch.rand(rows, columns, generator=generator).topk(kept, dim=1).indices
    return torch.zeros(rows, columns).scatter(1, chosen, torch.randn(rows, kept, generator=generator))


def decoded(features: Tensor, code: GateCode, form: GateForm) -> Tensor:
    """Returns `V relu(W F + b) + d`, (N, D), before any sigmoid; without the ReLU in the linear forms."""
    hidden = functional.linear(features, code.weight, code.bias)
    if form == "sigmoid":
        hidden = hidden.relu()
    return functional.linear(hidden, code.decoder, code.decoder_bias)


def reconstruction_errors(features: Tensor, code: GateCode, form: GateForm) -> Tensor:
    """Returns Er, (N,), of features as the form has them: in (0, 1) for "sigmoid"."""
    found = decoded(features, code, form)
    return (features - (found.sigmoid() if form == "sigmoid" else found)).square().sum(1)


def relatedness(error_a: Tensor, error_k: Tensor) -> Tensor:
    """Returns `Rel(k, a) = 1 - (Er_a - Er_k) / Er_k` of mean errors on samples of task k: 1 where a is as good as k."""
    return 1.0 - (error_a - error_k) / error_k


def principal_code(features: Tensor, code_size: int) -> GateCode:
    """The best linear auto-encoder: W = V^T the first C principal directions, d the mean, b = -W d.

    Args:
        features: F, (N, D).
        code_size: C; what N or D do not fill stays zero.
    """
    values = features.double()
    mean = values.mean(0)
    centred = values - mean
    n, d = centred.shape
    kept = min(code_size, n, d)
    # a direction without variance is left out: it could be one of another task
    if d <= n:
        squares, right = torch.linalg.eigh(centred.T @ centred)
        there = squares[-kept:] > 1e-12 * squares[-1]
        directions = right[:, -kept:].T * there[:, None]
    else:
        squares, left = torch.linalg.eigh(centred @ centred.T)
        scales = squares[-kept:].clamp_min(0.0).sqrt()
        scales = torch.where(scales > 1e-6 * scales[-1], 1.0 / scales, 0.0)
        directions = (left[:, -kept:] * scales).T @ centred
    weight = values.new_zeros(code_size, d)
    weight[:kept] = directions
    parts = (weight, -(weight @ mean), weight.T.contiguous(), mean)
    return GateCode(*(part.to(features) for part in parts))


def train_gate_code(
    features: Tensor, code_size: int, form: GateForm, learning_rate: float, weight_decay: float, epochs: int,
    batch_size: int, generator: torch.Generator,
) -> GateCode:  # fmt: skip
    """Fits an auto-encoder by AdaGrad to the cross-entropy (or half the squared error), summed over features.

    The form "pca" needs no steps: see `principal_code`.

    Args:
        features: F, (N, D), as the form has them.
        code_size: C.
        form: what is linear.
        learning_rate: of AdaGrad.
        weight_decay: of W and V.
        epochs: passes over the features.
        batch_size: samples of a step.
        generator: draws the initial weights and the order of the samples; on the CPU.
    """
    if form == "pca":
        return principal_code(features, code_size)
    drawn = GateCode.drawn(features.shape[1], code_size, generator, features)
    code = GateCode(*(part.requires_grad_() for part in drawn))
    groups = [
        {"params": [code.weight, code.decoder], "weight_decay": weight_decay},
        {"params": [code.bias, code.decoder_bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adagrad(groups, lr=learning_rate, eps=1e-8)
    with torch.enable_grad():
        for _ in range(epochs):
            order = torch.randperm(len(features), generator=generator).to(features.device)
            for chosen in order.split(batch_size):
                batch = features[chosen]
                found = decoded(batch, code, form)
                if form == "sigmoid":
                    loss = functional.binary_cross_entropy_with_logits(found, batch, reduction="sum")
                else:
                    loss = 0.5 * functional.mse_loss(found, batch, reduction="sum")
                gradients = torch.autograd.grad(loss / len(batch), code)
                for parameter, gradient in zip(code, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
    return GateCode(*(part.detach() for part in code))


class TaskGate(nn.Module):
    """The auto-encoders of all tasks, and what samples are before they are coded.

    Features are standardised by one mean and one standard deviation, those of the first task over all features, so
    that the errors of all auto-encoders are of the same thing.

    Attributes:
        form: of the auto-encoders.
        codes: the auto-encoders by their number.
    """

    scale: Tensor

    def __init__(self, form: GateForm = "sigmoid") -> None:
        super().__init__()
        self.form: GateForm = form
        self.codes = Shelf()
        self.register_buffer("scale", torch.tensor([0.0, 1.0]))

    @property
    def experts(self) -> int:
        """How many auto-encoders there are."""
        return len(self.codes.keys())

    def code(self, index: int) -> GateCode:
        """An auto-encoder."""
        return GateCode(**self.codes.get(index))

    def put(self, index: int, code: GateCode) -> None:
        """Adds an auto-encoder."""
        self.codes.put(index, code._asdict())

    def fit_scale(self, raw: Tensor) -> None:
        """Takes mean and standard deviation over all of `(N, D)` features; constant ones are only centred."""
        std = float(raw.std(correction=0))
        self.scale = torch.tensor([float(raw.mean()), std if std > 0.0 else 1.0]).to(self.scale)

    def features(self, raw: Tensor) -> Tensor:
        """Standardised features (N, D) of raw ones, through the sigmoid where the form has it."""
        flat = (raw.flatten(1) - self.scale[0]) / self.scale[1]
        return flat.sigmoid() if self.form == "sigmoid" else flat

    def errors(self, raw: Tensor) -> Tensor:
        """Er of each sample under each auto-encoder, (N, E)."""
        features = self.features(raw)
        columns = [reconstruction_errors(features, self.code(index), self.form) for index in range(self.experts)]
        return torch.stack(columns, 1)

    def forward(self, raw: Tensor) -> Tensor:
        """The expert of each sample, (N,): the argmax of the probabilities, which no temperature moves."""
        return self.errors(raw).argmin(1)
