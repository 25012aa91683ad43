"""CLS-ER: a fast and a slow average of the network teach it on replayed samples (Arani et al., ICLR 2022).

Symbols: `W` the working network that is trained, `P` the plastic and `S` the stable average of its weights, `z` logits,
`Z` those of the teacher, `lambda` the weight of the consistency, `alpha_P`, `alpha_S` the decays, `r_P`, `r_S` the
probabilities of an update. `B` samples of the stream in a step, `M` of the memory, `K` outputs. `docs/methods/clser.md`
has the deviations.
"""

from collections.abc import Mapping
from typing import Any, Literal

from cl_ext.nn.averaged_pair import AveragedPair
from cl_ext.nn.averaging import AveragedNetwork, Statistics
from cl_ext.nn.divergence import check_weights
from cl_ext.nn.late_sum import LateSum
from cl_ext.nn.memory import Policy
from cl_ext.nn.merging import WeightSwap
from cl_ext.nn.passes import logits
from cl_ext.plugins.checks import check_choice, check_number
from cl_ext.plugins.er import ERPlugin
from cl_ext.plugins.rehearsal import OutputsRead
from cl_ext.streams.seeding import random_state

import torch
from torch import Tensor, nn
from torch.nn import functional

EvaluationModel = Literal["stable", "plastic", "working"]


def choose_teacher(z_s: Tensor, z_p: Tensor, y: Tensor, read: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns `Z` (M, K) and which of its rows are the stable network's, (M,) bool.

    The teacher of a sample is the one whose softmax gives the sample's own class the larger probability; at equal ones
    it is the plastic one.

    Args:
        z_s: the stable network's logits, (M, K).
        z_p: the plastic network's, (M, K).
        y: labels, (M,).
        read: which outputs the softmax is over, (M, K) bool; None for all.
    """
    own, logits_of_both = y.unsqueeze(0), (z_s, z_p)
    if read is not None:
        logits_of_both = z_s.masked_fill(~read, float("-inf")), z_p.masked_fill(~read, float("-inf"))
    # down the columns of the transposed view: along a short last dimension the CPU's softmax takes four times as long
    p_s, p_p = (z.t().softmax(0) for z in logits_of_both)
    stable = (p_s > p_p).gather(0, own).t()
    return torch.where(stable, z_s, z_p), stable.squeeze(1)


def consistency(z: Tensor, Z: Tensor, read: Tensor | None = None) -> Tensor:
    """Returns the mean of `(z - Z)^2` over all M x K logits, a scalar; over the `read` ones, (M, K) bool, if given."""
    if read is None:
        return functional.mse_loss(z, Z)
    return torch.where(read, z - Z, 0.0).square().sum() / read.sum().clamp(min=1)


class CLSERPlugin(ERPlugin):
    """CLS-ER: experience replay with a consistency loss to the better of two averages of the network.

        L = (1 / (B + M)) sum CE + lambda (1 / (M K)) sum over the memory's samples |W(x) - Z(x)|^2

    with `Z(x)` the logits of P or S, of the one that gives the true class the larger probability. After each step,
    k = 1, 2, ..., with probability r_P:  `P := a P + (1 - a) W`, `a = min(1 - 1/(k + 1), alpha_P)`, and the same for S
    with a coin of its own. Nothing here knows of tasks or their boundaries.

    Every evaluation, those inside training too, sees the weights of `eval_model`, which `before_eval` puts into the
    network and `after_eval` takes out again bit for bit; set `plugin.eval_model` between two evaluations to see
    another. Predictions elsewhere take `plugin.evaluated_network(model)`.

    Attributes:
        plastic: P, with its steps and updates; `plastic.network` is the network.
        stable: S.
        eval_model: which of the three evaluation sees.
    """

    name = "CLSER"

    def __init__(
        self,
        clser_lambda: float = 0.1,
        mem_size: int = 200,
        mem_batch_size: int = 32,
        plastic_alpha: float = 0.999,
        stable_alpha: float = 0.999,
        plastic_rate: float = 0.9,
        stable_rate: float = 0.7,
        eval_model: EvaluationModel = "stable",
        bn: Statistics = "buffer-forward",
        shared_forward: bool = True,
        policy: Policy = "reservoir",
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters; the defaults are those of the authors' code, from which the published numbers are.

        Args:
            clser_lambda: weight of the consistency, >= 0, a mean over the K outputs too. At 0 the working network is
                that of `ERPlugin` bit for bit.
            mem_size: samples kept, >= 0.
            mem_batch_size: M >= 1; all of the memory while that has fewer.
            plastic_alpha: alpha_P in [0, 1].
            stable_alpha: alpha_S in [0, 1].
            plastic_rate: r_P in [0, 1]; with the decays equal, the larger rate is the faster average.
            stable_rate: r_S in [0, 1].
            eval_model: "stable", "plastic" or "working".
            bn: where the running statistics of batch norm come from in P and S: "buffer-forward", the authors': from
                their passes of the memory's batches; "ema": averaged like weights; "copy": the working network's.
            shared_forward: the consistency takes W's logits from the pass that the cross-entropy takes them from;
                False has the authors' second pass of the memory's batch, which batch norm and dropout see.
            policy: which samples are kept: "reservoir", "ring" or "class_balanced"; see `RehearsalMemory`.
            seed: of the plugin's own generators, >= 0: of the memory, the same as in `ERPlugin`, and of the coins.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__(mem_size, mem_batch_size, policy, seed)
        owner = type(self).__name__
        self.clser_lambda = check_number(owner, "clser_lambda", clser_lambda, 0.0)
        self.eval_model: EvaluationModel = check_choice(owner, "eval_model", eval_model, EvaluationModel)
        self.shared_forward = shared_forward
        self.plastic, self.stable = (
            AveragedNetwork(
                check_number(owner, f"{name}_alpha", alpha, 0.0, 1.0),
                check_number(owner, f"{name}_rate", rate, 0.0, 1.0),
                check_choice(owner, "bn", bn, Statistics),
                int(random_state(seed, f"coins of the {name} average").randint(2**31)),
            )
            for name, alpha, rate in (
                ("plastic", plastic_alpha, plastic_rate),
                ("stable", stable_alpha, stable_rate),
            )
        )
        self._teachers = AveragedPair(self.plastic, self.stable)
        self._swap = WeightSwap()
        self._stale = True
        self._read = OutputsRead()
        self._second: Tensor | None = None
        self._totals: dict[str, Any] = {}

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes."""
        return super().extra_bytes() + self.plastic.bytes() + self.stable.bytes() + self._swap.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        return super().state_dict() | {"plastic": self.plastic.state_dict(), "stable": self.stable.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin, or of a memory of another size.
        """
        super().load_state_dict(state)
        self.plastic.load_state_dict(state["plastic"])
        self.stable.load_state_dict(state["stable"])
        self._stale = True

    def _evaluated(self) -> AveragedNetwork | None:
        return {"plastic": self.plastic, "stable": self.stable}.get(self.eval_model)

    def evaluated_network(self, model: nn.Module) -> nn.Module:
        """Returns the network that `eval_model` names; `model`, the working one, before the first step."""
        average = self._evaluated()
        if average is None or not average.values():
            return model
        if average.network is None:
            average.follow(model)
        assert average.network is not None
        return average.network

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Takes out what an interrupted evaluation has left."""
        super().before_training_exp(strategy, *args, **kwargs)
        self._swap.leave(strategy.model)
        self._read.restart()

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts the epoch's means."""
        super().before_training_epoch(strategy, *args, **kwargs)
        self._stale = True
        self._totals = {"steps": 0, "loss": LateSum(), "stable": LateSum(), "taught": 0, "before": self._updates()}

    def _updates(self) -> tuple[int, int]:
        return self.plastic.updates, self.stable.updates

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Has the averages follow the network where it may have been changed: heads, masks, modes."""
        if self._stale:
            self._teachers.follow(strategy.model)
            self._stale = False

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts a batch of the memory behind the stream's; the second forward pass, where there is one, comes first."""
        super().before_forward(strategy, *args, **kwargs)
        drawn = len(strategy.mbatch[1]) - len(self._stream[1])
        # one sample is no batch to batch norm
        if not self.shared_forward and self.clser_lambda > 0.0 and drawn > 1:
            self._second = logits(strategy.model, *self._memory_part(strategy))

    def _memory_part(self, strategy: Any) -> tuple[Tensor, Tensor | None]:
        """Returns inputs and task labels of the memory's part of the batch."""
        start = len(self._stream[1])
        return strategy.mbatch[0][start:], strategy.mbatch[-1][start:] if len(strategy.mbatch) > 2 else None

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds the consistency to the loss.

        Raises:
            DivergedError: if the loss is not finite; on the CPU only, elsewhere it waits for the epoch's end.
        """
        start = len(self._stream[1])
        y = strategy.mbatch[1][start:]
        if len(y) and (self.clser_lambda > 0.0 or self.plastic.needs_passes):
            self._teach(strategy, y, strategy.mb_output[start:] if self._second is None else self._second)
        self._second = None
        if strategy.loss.device.type == "cpu":
            self.check_loss(strategy, strategy.loss.item(), "clser_lambda")

    def _teach(self, strategy: Any, y: Tensor, z: Tensor) -> None:
        x, t = self._memory_part(strategy)
        z_p, z_s = self._teachers(x, t)
        if self.clser_lambda == 0.0:  # the passes were for batch norm's statistics
            return
        read = self._read(strategy._criterion, z, y)
        Z, stable = choose_teacher(z_s, z_p, y, read)
        term = consistency(z, Z, read)
        strategy.loss = torch.add(strategy.loss, term, alpha=self.clser_lambda)
        self._totals["loss"].add(term)
        self._totals["stable"].add(stable)
        self._totals["taught"] += len(y)

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Lets both averages take the step."""
        super().after_update(strategy, *args, **kwargs)
        self.plastic.step_()
        self.stable.step_()
        self._totals["steps"] += 1

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the epoch's means: consistency, share of samples that S taught, share of steps with an update."""
        super().after_training_epoch(strategy, *args, **kwargs)
        total, steps = self._totals, max(1, self._totals["steps"])
        loss = self.clser_lambda * total["loss"].total() / steps
        self.check_loss(strategy, loss + strategy.loss.item(), "clser_lambda")
        self.publish(strategy, "Consistency", loss)
        self.publish(strategy, "StableTeacher", total["stable"].total() / max(1, total["taught"]))
        for name, now, before in zip(("Plastic", "Stable"), self._updates(), total["before"], strict=True):
            self.publish(strategy, f"{name}Updates", (now - before) / steps)

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts the evaluated weights in.

        Raises:
            DivergedError: if they are not finite.
        """
        average = self._evaluated()
        values = {} if average is None else average.values()
        check_weights(values or dict(strategy.model.named_parameters()), f"{self.name}: the {self.eval_model} network")
        self._swap.enter(strategy.model, values)

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts the working network's own weights back."""
        self._swap.leave(strategy.model)
        self._stale = True
