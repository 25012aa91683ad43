"""Hard attention to the task (Serra, Suris, Miron, Karatzoglou, ICML 2018).

Symbols as in the paper: `e` a task's embedding, `a = sigmoid(s e)` its gates, `s` the slope, `A` the cumulative gates
of the tasks before (the paper's a^{<=t-1}), `R` the regulariser, `c` its weight, here `hat_lambda`.
`docs/methods/hat.md` has the deviations.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.nn.gated import Gated
from cl_ext.nn.gates import UpdateMask, compensation, gate, slope, update_masks, used_share
from cl_ext.nn.scheme import Scheme
from cl_ext.plugins.architecture import ExpandablePlugin
from cl_ext.plugins.checks import check_choice, check_count, check_number

import torch
from torch import Tensor, nn

TestGates = Literal["soft", "hard"]


class HATPlugin(ExpandablePlugin):
    """Hard attention to the task: every task learns gates on the units, and protects what is behind open ones.

        h_l := a_l h_l,   a_l = sigmoid(s e_l)         s from 1/s_max to s_max within each epoch, s_max at test time
        loss += c R,      R = sum a (1 - A) / sum (1 - A)
        W_ij := W_ij(old) + (1 - min(A_i, A_j)) (W_ij(new) - W_ij(old))                  after the optimizer's step

    It needs a network of `cl_ext.models.expandable` that is a chain of layers, and a task label of its own for each
    experience, in training and at test time. The gates are parameters of the network.
    Heads and batch norm are each task's own; those of earlier tasks keep their bits, and so does every weight between
    units that earlier tasks have open. With soft gates a task may read, by gates that are small and not 0, what later
    ones change.
    """

    name = "HAT"

    def __init__(
        self,
        hat_lambda: float = 0.75,
        s_max: float = 400.0,
        gates: TestGates = "soft",
        embedding_lr: float | None = None,
        clip: float = 10000.0,
        clamp: float = 6.0,
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters; the defaults are the paper's.

        Args:
            hat_lambda: c, weight of the regulariser, >= 0.
            s_max: the largest slope, > 0, and that of the gates at test time.
            gates: at test time "soft" ones, of slope s_max, or "hard" ones, 1 where e > 0 and 0 elsewhere: then earlier
                tasks are kept bit for bit.
            embedding_lr: learning rate of plain SGD for e, > 0, whatever the strategy's optimizer does with the rest.
                None leaves e to that optimizer; one that normalises gradients, as Adam does, undoes the compensation.
            clip: the largest norm of a step's gradient, > 0.
            clamp: e stays within plus and minus this, > 0.
            seed: of the generator that draws e from N(0, 1), >= 0.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        owner = type(self).__name__
        self.hat_lambda = check_number(owner, "hat_lambda", hat_lambda, 0.0)
        self.s_max = check_number(owner, "s_max", s_max, 0.0, above=True)
        self.gates: TestGates = check_choice(owner, "gates", gates, TestGates)
        self.embedding_lr = (
            None if embedding_lr is None else check_number(owner, "embedding_lr", embedding_lr, 0.0, above=True)
        )
        self.clip = check_number(owner, "clip", clip, 0.0, above=True)
        self.clamp = check_number(owner, "clamp", clamp, 0.0, above=True)
        self._draws = torch.Generator().manual_seed(check_count(owner, "seed", seed, low=0))
        self._scheme = Gated()
        self._parameters: list[nn.Parameter] = []
        self._mask: UpdateMask | None = None
        self._finite = False
        self._A: Tensor | None = None
        self._e = nn.Parameter(torch.zeros(0))
        self._s = self.s_max
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._batch, self._used = 0, 0.0

    def extra_bytes(self) -> int:
        """Returns the memory held beside the weights, in bytes.

        Masks, the weights before a step, cumulative gates, and the finished tasks' batch norm; their gates are
        parameters of the network.
        """
        norms = sum(tensor.nbytes for tensor in self._scheme.norms.buffers())
        masks = (0 if self._mask is None else self._mask.bytes()) + (0 if self._A is None else self._A.nbytes)
        return norms + masks

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences; the gates are the network's."""
        return super().state_dict() | {"draws": self._draws.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it."""
        super().load_state_dict(state)
        self._draws.set_state(state["draws"].cpu())

    def before_train_dataset_adaptation(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Makes the task's embedding, before Avalanche collects the parameters that it trains."""
        network = self.network(strategy)
        stages = network.stages
        self._check_scheme(network)
        task = self.begin_task(strategy)
        self._scheme = self._own_scheme(network)
        e = torch.randn(sum(stage.units for stage in stages), generator=self._draws)
        self._e = self._scheme.begin(task, e.clamp(-self.clamp, self.clamp).to(stages[0].layer.weight))

    @property
    def _s_test(self) -> float:
        return self.s_max if self.gates == "soft" else math.inf

    def _check_scheme(self, network: ExpandableNetwork) -> None:
        scheme = network.scheme
        if not isinstance(scheme, Gated):
            if type(scheme) is not Scheme or network.tasks:
                raise TypeError(
                    f"HATPlugin needs a network that no other method has trained; this one is {scheme.label!r}"
                )
        elif float(scheme.s_test) != self._s_test:
            raise ValueError(
                f"HATPlugin: the network's gates have the slope {float(scheme.s_test):g}, not {self._s_test:g}"
            )

    def _own_scheme(self, network: ExpandableNetwork) -> Gated:
        if not isinstance(network.scheme, Gated):
            network.scheme = Gated(self._s_test).to(next(network.features.parameters()).device)
            network.scheme.train(network.training)
        return network.scheme

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Rests the heads of earlier tasks, and takes the masks that their gates give."""
        network = self.network(strategy)
        for task in self.tasks[:-1]:
            network.heads[task].requires_grad_(False)
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        for parameter in network.parameters():
            parameter.grad = None
        self._A, self._mask = self._scheme.cumulative(), None
        if self._A is not None:
            masks = update_masks(network.stages, self._A)
            protected = [(p, masks[name]) for name, p in network.features.named_parameters()
                         if name in masks and p.requires_grad]  # fmt: skip
            self._mask = UpdateMask([p for p, _ in protected], [mask for _, mask in protected])

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts the epoch's slope and means."""
        self._start_epoch()

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Sets the slope."""
        self._batch += 1
        self._s = slope(self._batch, len(strategy.dataloader), self.s_max)
        self._scheme.s.fill_(self._s)

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds c R to the loss."""
        super().before_backward(strategy)
        used = used_share(gate(self._e, self._s), self._A)
        strategy.loss += self.hat_lambda * used
        self._used += float(used.detach())
        self.check_loss(strategy, float(strategy.loss.detach()), "hat_lambda")

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Masks and compensates the gradients, and clips them."""
        if self._mask is not None:
            self._mask.mask_gradients()
        if self._e.grad is not None:
            self._e.grad.mul_(compensation(self._e.detach(), self._s, self.s_max))
        self._finite = bool(nn.utils.clip_grad_norm_(self._parameters, self.clip).isfinite())
        if self.embedding_lr is not None and self._e.grad is not None:
            with torch.no_grad():
                self._e.add_(self._e.grad, alpha=-self.embedding_lr)
            self._e.grad = None  # an optimizer leaves alone what has no gradient

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Takes back what the gates of earlier tasks do not let through, and clamps the embedding."""
        super().after_update(strategy)
        if self._mask is not None:
            self._mask.apply(self._finite)
        with torch.no_grad():
            self._e.clamp_(-self.clamp, self.clamp)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the epoch's mean of R and its last slope."""
        if self._batch:
            self.publish(strategy, "R", self._used / self._batch)
            self.publish(strategy, "Slope", self._s)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Rests the task's gates; publishes how many of the units it and all tasks so far have open."""
        self._scheme.finish(self.network(strategy).features, self.tasks[-1])
        A = self._scheme.cumulative()
        assert A is not None  # a task has been trained
        self.publish(strategy, "Open", float(self._scheme.gates(self.tasks[-1]).gt(0.5).float().mean()))
        self.publish(strategy, "OpenInAll", float(A.gt(0.5).float().mean()))
        self.experiences += 1
