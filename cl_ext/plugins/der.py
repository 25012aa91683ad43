"""Dark experience replay, DER and DER++ (Buzzega, Boschini, Porrello, Abati, Calderara, NeurIPS 2020).

Symbols as in the paper: `h` the network's logits, `z` those stored with a sample, `alpha` and `beta` the weights. `B`
samples of the stream in a step, `M` of the memory, `K` outputs. `docs/methods/er.md` has the deviations.
"""

from collections.abc import Mapping
from typing import Any

from cl_ext.nn.memory import Policy
from cl_ext.nn.passes import logits
from cl_ext.plugins.checks import check_number
from cl_ext.plugins.rehearsal import OutputsRead, RehearsalPlugin

import torch
from torch import Tensor
from torch.nn import functional

_UNREAD = float("nan")
"""Stands for a logit that is not compared: the network had no such unit, or the loss did not read it."""


def logit_distance(h: Tensor, z: Tensor) -> Tensor:
    """Returns the mean of `(h - z)^2` over all M x K stored logits, a scalar.

    The paper writes a squared norm, a sum over the K outputs; its code takes this mean, and the published values of
    alpha belong to it.

    Args:
        h: the network's logits, (M, K'), K' >= K: units that came later are not compared.
        z: the stored ones, (M, K).
    """
    return functional.mse_loss(h[:, : z.shape[1]], z)


def read_logit_distance(h: Tensor, z: Tensor) -> Tensor:
    """Returns `logit_distance` over those entries of `z` that are not NaN."""
    read = ~z.isnan()
    difference = torch.where(read, h[:, : z.shape[1]] - z, 0.0)
    return difference.square().sum() / read.sum().clamp(min=1)


class DERPlugin(RehearsalPlugin):
    """Dark experience replay; with `beta` > 0 it is DER++.

        L = CE(stream) + alpha (1 / (M K)) |h(x') - z'|^2 + beta CE(h(x''), y'')

    with (x', z') and (x'', y'') two batches drawn independently from the memory, each with a forward pass of its own in
    the network's present mode, and the strategy's own criterion for the labels, which in a task-incremental stream
    compares each sample with its own task's classes. A term of weight 0 is not computed. Afterwards the memory is
    offered the stream's samples with the logits that the step's own forward pass gave them, before the step.

    Logits are compared on the outputs that they were trained on: those that the loss reads for the sample (a task's
    classes, those seen so far) and that the network had when it was stored. The mean is over these.
    """

    name = "DER"

    def __init__(
        self,
        alpha: float = 0.2,
        beta: float = 0.0,
        mem_size: int = 200,
        mem_batch_size: int = 10,
        policy: Policy = "reservoir",
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters; the defaults are the authors' code's for sequential MNIST.

        Args:
            alpha: weight of the logits' distance, >= 0, which is a mean over the outputs.
            beta: weight of the labels' loss, >= 0; 0 is DER, above it DER++.
            mem_size: samples kept, >= 0; with 0, or with both weights 0, it equals training without the plugin.
            mem_batch_size: M >= 1, of each of the two batches; all of the memory while that has fewer.
            policy: which samples are kept: "reservoir", "ring" or "class_balanced"; see `RehearsalMemory`.
            seed: of the plugin's own generators, >= 0: what is kept, and what is drawn from it.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__(mem_size, mem_batch_size, policy, seed)
        owner = type(self).__name__
        self.alpha = check_number(owner, "alpha", alpha, 0.0)
        self.beta = check_number(owner, "beta", beta, 0.0)
        self._z: Tensor | None = None
        self._read = OutputsRead()
        self._partial = False
        self._masks: list[float] = []
        self._totals: dict[str, Tensor | float] = {}
        self._steps = 0

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin, or of a memory of another size.
        """
        super().load_state_dict(state)
        self._partial = bool(self.memory["logits"].isnan().any()) if self.memory else False

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Notes what the experience may have changed: which outputs the loss reads, which are masked."""
        super().before_training_exp(strategy, *args, **kwargs)
        self._read.restart()
        heads = [module for module in strategy.model.modules() if getattr(module, "masking", False)]
        self._masks = sorted({float(head.mask_value) for head in heads if hasattr(head, "mask_value")})

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts the epoch's means."""
        self._totals, self._steps = {"Logits": 0.0, "Labels": 0.0}, 0

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keeps the stream's logits."""
        if self.mem_size:
            self._z = self._comparable(strategy.mb_output.detach()[: len(self._stream[0])], strategy._criterion)

    def _comparable(self, z: Tensor, criterion: Any) -> Tensor:
        """Returns the logits (B, K) with NaN in the place of those that are not to be compared."""
        if self._memory.widen("logits", z.shape[1], _UNREAD):
            self._partial = True
        read = self._read(criterion, z, self._stream[1])
        if read is not None:
            z = z.masked_fill(~read, _UNREAD)
        for value in self._masks:
            z = z.masked_fill(z == value, _UNREAD)
        self._partial = self._partial or read is not None or bool(self._masks)
        return z

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds the memory's terms to the loss."""
        self._steps += 1
        for name, weight in (("Logits", self.alpha), ("Labels", self.beta)):
            drawn = self._memory.sample(self.mem_batch_size) if weight else None
            if drawn is None:
                continue
            h = logits(strategy.model, drawn["x"], drawn.get("t"))
            if name == "Labels":
                term = strategy._criterion(h, drawn["y"])
            else:
                term = (read_logit_distance if self._partial else logit_distance)(h, drawn["logits"])
            term = weight * term
            strategy.loss = strategy.loss + term
            self._totals[name] += term.detach()

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Offers the stream's samples and their logits to the memory."""
        if self._z is None:
            return
        self.offer(logits=self._z)
        self._z = None

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the epoch's means of what was added to the loss, weights included."""
        for name, total in self._totals.items():
            self.publish(strategy, name, float(total) / max(1, self._steps))
