"""Encoder Based Lifelong Learning (Rannen et al., ICCV 2017): LwF that also holds what old tasks need of the features.

Symbols: `F` (B, D) the features that the head is given, `W_e` (C, D) and `b` (C,) an encoder, `sigma` the logistic
function, `W_d` (D, C) and `b_d` (D,) the decoder. `docs/methods/ebll.md` has the deviations.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cl_ext.nn.distillation import InputTap, View, head_of
from cl_ext.nn.passes import evaluation_mode, labelled_batches, logits, preserved_random_state
from cl_ext.plugins.checks import check_count, check_number
from cl_ext.plugins.lwf import LwFPlugin

import torch
from avalanche.models import MultiHeadClassifier
from torch import Tensor, nn
from torch.nn import functional

PASS_BATCH = 256
TaskLoss = Callable[[Tensor, Tensor], Tensor]
"""From reconstructed features (B, D) and the samples' numbers (B,) to the task's loss."""


def code(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns `sigma(W_e F + b)`, (B, C)."""
    return functional.linear(features, weight, bias).sigmoid()


def code_loss(features: Tensor, features_t: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns `(1/B) sum_n |sigma(W_e F_n + b) - sigma(W_e F*_n + b)|^2`, a scalar; `F*` is constant.

    Encoders of several tasks may be stacked: the squared norm is then the sum over tasks.
    """
    difference = code(features, weight, bias) - code(features_t, weight, bias).detach()
    return difference.square().sum() / len(features)


class AutoEncoder(NamedTuple):
    """`W_e` (C, D), `b` (C,), `W_d` (D, C), `b_d` (D,)."""

    weight: Tensor
    bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor

    @classmethod
    def drawn(cls, features: int, code_size: int, generator: torch.Generator, like: Tensor) -> "AutoEncoder":
        """Draws one as `nn.Linear` does, uniformly within 1 / sqrt(inputs); type and device are those of `like`."""

        def uniform(*shape: int, inputs: int) -> Tensor:
            values = torch.rand(*shape, generator=generator, dtype=torch.float64) * 2.0 - 1.0
            return (values * inputs**-0.5).to(like).requires_grad_()

        shapes = ((code_size, features), (code_size,), (features, code_size), (features,))
        inputs = (features, features, code_size, code_size)
        return cls(*(uniform(*shape, inputs=n) for shape, n in zip(shapes, inputs, strict=True)))

    def reconstruct(self, features: Tensor) -> Tensor:
        """Returns `W_d sigma(W_e F + b) + b_d`, (B, D)."""
        return functional.linear(code(features, self.weight, self.bias), self.decoder, self.decoder_bias)


def train_autoencoder(
    features: Tensor, task_loss: TaskLoss, code_size: int, alpha: float, learning_rate: float, epochs: int,
    batch_size: int, generator: torch.Generator,
) -> AutoEncoder:  # fmt: skip
    """Minimises `alpha * mean (F - recon)^2 + task_loss(recon)` by Adadelta, and returns the auto-encoder.

    Args:
        features: F, (N, D); constants.
        task_loss: the frozen head's loss.
        code_size: C.
        alpha: weight of the reconstruction; the mean goes over samples and features.
        learning_rate: of Adadelta.
        epochs: passes over the features.
        batch_size: samples of a step.
        generator: draws the initial weights and the order of the samples; on the CPU.
    """
    autoencoder = AutoEncoder.drawn(features.shape[1], code_size, generator, features)
    optimizer = torch.optim.Adadelta(autoencoder, lr=learning_rate)
    with torch.enable_grad():
        for _ in range(epochs):
            order = torch.randperm(len(features), generator=generator).to(features.device)
            for chosen in order.split(batch_size):
                batch = features[chosen]
                recon = autoencoder.reconstruct(batch)
                loss = alpha * functional.mse_loss(recon, batch) + task_loss(recon, chosen)
                gradients = torch.autograd.grad(loss, autoencoder)
                for parameter, gradient in zip(autoencoder, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
    return AutoEncoder(*(parameter.detach() for parameter in autoencoder))


class EBLLPlugin(LwFPlugin):
    """Encoder Based Lifelong Learning.

    After an experience an under-complete auto-encoder is trained on the features F of its data, the network frozen:

        code = sigma(W_e F + b),   recon = W_d code + b_d,   loss = alpha mean (F - recon)^2 + L(head(recon))

    Encoders are kept, decoders are not. Later experiences train on

        L + lwf_lambda sum_groups KD + (ebll_lambda / 2) sum_k (1/B) sum_n |code_k(F(x_n)) - code_k(F*(x_n))|^2

    with KD and the teacher as in `LwFPlugin`, F* the teacher's features and k over the past experiences. At
    `ebll_lambda = 0` no auto-encoder is trained and it equals LwF bit for bit.

    The body of the paper was not read: equations and values are those of public code. The default `ebll_lambda` is
    CLsurvey's strength 1 of the mean squared difference of 100 code units, which is 2/100 in these units.
    """

    name = "EBLL"
    _quantities = ("Distillation", "Code")

    def __init__(
        self,
        ebll_lambda: float = 0.02,
        lwf_lambda: float = 1.0,
        temperature: float = 2.0,
        code_size: int = 100,
        ae_alpha: float = 1e-6,
        ae_lr: float = 0.01,
        ae_epochs: int = 50,
        ae_batch_size: int = 200,
        head: str | None = None,
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            ebll_lambda: strength of the codes' squared distance, >= 0; with a factor 1/2.
            lwf_lambda: strength of the distillation, >= 0.
            temperature: T > 0.
            code_size: C, units of a code, >= 1; below the number of features to be under-complete.
            ae_alpha: weight of the reconstruction when an auto-encoder is trained, >= 0.
            ae_lr: Adadelta's learning rate, > 0.
            ae_epochs: passes over an experience's features, >= 1.
            ae_batch_size: samples of an auto-encoder's step, >= 1.
            head: name of the module whose input are the features and whose output are the logits; None to find it
                (`cl_ext.nn.distillation.head_of`).
            seed: of the auto-encoders, >= 0; each experience has its own stream of random numbers.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__(lwf_lambda, temperature)
        owner = type(self).__name__
        self.ebll_lambda = check_number(owner, "ebll_lambda", ebll_lambda, 0.0)
        self.code_size = check_count(owner, "code_size", code_size)
        self.ae_alpha = check_number(owner, "ae_alpha", ae_alpha, 0.0)
        self.ae_lr = check_number(owner, "ae_lr", ae_lr, 0.0, above=True)
        self.ae_epochs = check_count(owner, "ae_epochs", ae_epochs)
        self.ae_batch_size = check_count(owner, "ae_batch_size", ae_batch_size)
        self.seed = check_count(owner, "seed", seed, low=0)
        self.head = head
        self._encoders: tuple[Tensor, Tensor] | None = None

    @property
    def encoders(self) -> tuple[Tensor, Tensor] | None:
        """`W_e` (k C, D) and `b` (k C,) of the k past experiences, stacked; None before there is one."""
        return self._encoders

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes."""
        return super().extra_bytes() + sum(tensor.nbytes for tensor in self._encoders or ())

    def state_dict(self) -> dict[str, Any]:
        """Returns LwF's state and the encoders; the tensors are copies."""
        encoders = None if self._encoders is None else [tensor.clone() for tensor in self._encoders]
        return super().state_dict() | {"encoders": encoders}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin.
        """
        super().load_state_dict(state)
        encoders = state["encoders"]
        self._encoders = None if encoders is None else (encoders[0].clone(), encoders[1].clone())

    def _holds_codes(self) -> bool:
        return self.ebll_lambda > 0.0 and self._encoders is not None

    def _teaches(self) -> bool:
        return super()._teaches() or self._holds_codes()

    def _wants_features(self) -> bool:
        return super()._wants_features() or self._holds_codes()

    def _head_of(self, model: nn.Module) -> nn.Module:
        head = head_of(model, self.head)
        if self._multi_head and not isinstance(head, MultiHeadClassifier):
            raise ValueError(f"{type(self).__name__}: head {self.head!r} is not the network's MultiHeadClassifier")
        return head

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Copies the adapted network, and puts the encoders beside it."""
        super().before_training_exp(strategy, *args, **kwargs)
        if self._encoders is not None:
            weight, bias = (tensor.to(strategy.device) for tensor in self._encoders)
            self._encoders = weight, bias

    def _terms(self, student: View, teacher: View) -> dict[str, Tensor]:
        terms = super()._terms(student, teacher)
        if self.ebll_lambda > 0.0 and self._encoders is not None:
            terms["Code"] = self.ebll_lambda / 2 * code_loss(student.features, teacher.features, *self._encoders)
        return terms

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Records the trained outputs, and trains the experience's auto-encoder."""
        if self.ebll_lambda > 0.0:
            with preserved_random_state(), evaluation_mode(strategy.model):
                self._add_encoder(strategy)
        super().after_training_exp(strategy, *args, **kwargs)

    def _add_encoder(self, strategy: Any) -> None:
        head = self._head_of(strategy.model)
        features, y, t = self._features_of(strategy, head)

        def task_loss(recon: Tensor, chosen: Tensor) -> Tensor:
            phi = head(recon, t[chosen]) if self._multi_head else head(recon)
            loss: Tensor = strategy._criterion(phi, y[chosen])
            return loss

        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.experiences)
        settings = (self.code_size, self.ae_alpha, self.ae_lr, self.ae_epochs, self.ae_batch_size)
        autoencoder = train_autoencoder(features, task_loss, *settings, generator)
        old = self._encoders or (features[:0], features[:0, 0])
        self._encoders = torch.cat([old[0], autoencoder.weight]), torch.cat([old[1], autoencoder.bias])
        with torch.no_grad():
            recon = autoencoder.reconstruct(features)
            self.publish(strategy, "ReconstructionError", float(functional.mse_loss(recon, features)))
            everything = torch.arange(len(y), device=y.device)
            self.publish(strategy, "ReconstructionTaskLoss", float(task_loss(recon, everything)))

    def _features_of(self, strategy: Any, head: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Returns features (N, D), labels (N,) and task labels (N,) of the experience's own data, in eval mode."""
        tap, found = InputTap(), []
        size = max(strategy.train_mb_size, PASS_BATCH)
        for x, y, t in labelled_batches(strategy.experience.dataset, size, strategy.device):
            t = torch.zeros_like(y) if t is None else t
            order = t.argsort(stable=True)  # a network that runs its head task by task gives its features in this order
            tap.open(head)
            with torch.no_grad():
                logits(strategy.model, x[order], t[order])
            found.append((tap.take(len(x)), y[order], t[order]))
        features, labels, tasks = (torch.cat(parts) for parts in zip(*found, strict=True))
        return features, labels, tasks
