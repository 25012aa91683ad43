"""Net2Net between experiences (Chen, Goodfellow & Shlens, ICLR 2016): the network grows, and what it computes stays.

It is growth alone: nothing here holds on to earlier experiences. `docs/methods/net2net.md` has the deviations.
"""

from collections.abc import Mapping
from typing import Any

from cl_ext.models.growable import Body
from cl_ext.nn.chain import Stage
from cl_ext.nn.net2net import deepen, draw_mapping, place_behind, widen
from cl_ext.nn.parameters import trainable_parameters
from cl_ext.nn.passes import batches, evaluation_mode, logits, preserved_random_state
from cl_ext.nn.phases import train_all
from cl_ext.plugins.base import MethodPlugin
from cl_ext.plugins.checks import check_count, check_number

import torch
from torch import Tensor, nn

_STATISTICS_BATCHES = 8


class Net2NetPlugin(MethodPlugin):
    """Makes the network wider and deeper at the start of each experience but the first.

    The network is changed in place, keeps its object, and goes on computing what it did, up to rounding; the
    optimizer's group is refilled in place and its state dropped. Ordinary networks with one classifier for all tasks:
    see `cl_ext.models.growable.Body`. A network that is to load the state of a grown one goes through
    `cl_ext.models.growable.growable` first.

    Attributes:
        experiences: how many experiences have been trained on to their end.
        widths: the units of each group at the start, by name.
    """

    name = "Net2Net"

    def __init__(
        self, wider: float = 0.25, deeper: int = 0, noise: float = 0.01, lr_factor: float = 1.0, seed: int = 0
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            wider: units that each hidden layer gains at a growth, in parts of the units that it began with, >= 0.
            deeper: identity layers put behind the last hidden layer at a growth, >= 0; for chains of layers.
            noise: standard deviation of what tells copies apart, in that of the layer's weights, >= 0.
            lr_factor: of the learning rate in each step from the first growth on, > 0, whatever a schedule makes of the
                rate; between steps the optimizer has its own. The paper's students, which go on with the same data,
                take a tenth.
            seed: of what is copied, and of the noise, >= 0.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        owner = type(self).__name__
        self.wider = check_number(owner, "wider", wider, 0.0)
        self.deeper = check_count(owner, "deeper", deeper, low=0)
        self.noise = check_number(owner, "noise", noise, 0.0)
        self.lr_factor = check_number(owner, "lr_factor", lr_factor, 0.0, above=True)
        self.seed = check_count(owner, "seed", seed, low=0)
        self.widths: dict[str, int] = {}
        self._labels = 0
        self._rates: list[Any] = []

    def extra_bytes(self) -> int:
        """Returns 0: nothing is kept beside the network."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the state between two experiences; the network's own state has what has grown."""
        return super().state_dict() | {"widths": dict(self.widths), "labels": self._labels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it."""
        super().load_state_dict(state)
        self.widths = {str(name): int(units) for name, units in state["widths"].items()}
        self._labels = int(state["labels"])

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Lets the network grow, from the second experience on.

        Raises:
            TypeError: if the network cannot grow.
            ValueError: if it has no trainable parameter, or one that growth would change is frozen.
        """
        trainable_parameters(strategy.model)
        body = Body(strategy.model)
        if not self.experiences and self.deeper:
            place_behind(body.stages[-1])  # refuses now what it could not do later
        for group in body.groups:
            self.widths.setdefault(group.name, group.units)
        if self._grows:
            self._grow(strategy, body)

    def _grow(self, strategy: Any, body: Body) -> None:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.experiences)
        for group in body.groups:
            more = round(self.wider * self.widths[group.name])
            if more:
                self._check_trainable(group.modules, group.name)
                widen(group, draw_mapping(group.units, group.units + more, generator), self.noise, generator)
        for _ in range(self.deeper):
            stage = body.stages[-1]
            statistics = None
            if stage.norm is not None:
                with preserved_random_state(), evaluation_mode(strategy.model):
                    statistics = self._statistics(strategy, body, stage)
            self._labels += 1
            deepen(body.root, stage, self._labels, statistics=statistics)
            body = Body(strategy.model)
            self.widths[body.stages[-1].name] = stage.units
        train_all(strategy)

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Lowers the learning rate for the step, once the network has grown."""
        if self._grows:
            # not in the optimizer between steps, where a schedule would lose it, or take it twice
            self._rates = [group["lr"] for group in strategy.optimizer.param_groups]
            for group in strategy.optimizer.param_groups:
                group["lr"] = group["lr"] * self.lr_factor

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts the learning rate back."""
        if self._grows:
            for group, lr in zip(strategy.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = lr

    @property
    def _grows(self) -> bool:
        """Whether the network grows at the present experience, or has grown before it."""
        return self.experiences > 0 and bool(self.wider or self.deeper)

    def _check_trainable(self, modules: list[nn.Module], name: str) -> None:
        if not all(parameter.requires_grad for module in modules for parameter in module.parameters()):
            raise ValueError(
                f"{type(self).__name__} cannot widen {name!r}: its weights, or those that read it, are frozen, and "
                "would have to change"
            )

    def _statistics(self, strategy: Any, body: Body, stage: Stage) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel of what a stage gives, over samples of the experience."""
        totals: list[tuple[Tensor, Tensor, int]] = []
        place = body.root.get_submodule(place_behind(stage)[0])
        handle = place.register_forward_hook(lambda _, inputs, output: totals.append(channel_sums(output)))
        size = max(strategy.train_mb_size, 256)
        try:
            for index, (x, t) in enumerate(batches(strategy.experience.dataset, size, strategy.device)):
                if index == _STATISTICS_BATCHES:
                    break
                with torch.no_grad():
                    logits(strategy.model, x, t)
        finally:
            handle.remove()
        total, squares = sum(each[0] for each in totals), sum(each[1] for each in totals)
        count = sum(each[2] for each in totals)
        mean = total / count
        like = stage.layer.weight
        return mean.to(like), (squares / count - mean.square()).clamp_min(0.0).to(like)  # type: ignore[union-attr]

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the network's size."""
        groups = Body(strategy.model).groups
        self.publish(strategy, "Units", float(sum(group.units for group in groups)))
        self.publish(strategy, "Layers", float(sum(len(group.makers) for group in groups)))
        self.publish(strategy, "Parameters", float(sum(p.numel() for p in strategy.model.parameters())))
        self.experiences += 1


def channel_sums(values: Tensor) -> tuple[Tensor, Tensor, int]:
    """Sum and sum of squares of the values of each channel, (n,) in double precision, and their number."""
    flat = values.detach().double().transpose(0, 1).flatten(1)
    return flat.sum(1), flat.square().sum(1), flat.shape[1]
