"""OGD with gradients at a fast and a slow average of the weights, too: a method of this package's own.

Symbols: `theta*` the weights at an experience's end, `theta_P` and `theta_S` the plastic and the stable average of all
weights so far (as in CLS-ER), `v` a stored direction, `V` all of them. `docs/methods/ogd_ema.md` says why it could help
and what it has to be compared with.
"""

from collections.abc import Mapping
from typing import Any, Literal

from cl_ext.nn.averaging import AveragedNetwork
from cl_ext.nn.logit_gradients import Variant
from cl_ext.plugins.checks import check_choice, check_number
from cl_ext.plugins.ogd import BasisKind, OGDPlugin
from cl_ext.plugins.quadratic import Heads
from cl_ext.streams.seeding import random_state

import torch
from torch import Tensor, nn

Points = Literal["task", "averages", "averages_only", "noise", "signs"]
POINTS: dict[Points, tuple[str, ...]] = {
    "task": ("task",),
    "averages": ("task", "plastic", "stable"),
    "averages_only": ("plastic", "stable"),
    "noise": ("task", "noise_plastic", "noise_stable"),
    "signs": ("task", "signs_plastic", "signs_stable"),
}
"""The weights at which each choice takes the gradients of the same samples."""


def noise_like(distance: Tensor, generator: torch.Generator) -> Tensor:
    """Returns a vector of a uniformly drawn direction and the length of `distance` (P,)."""
    u = torch.randn(distance.shape, generator=generator, dtype=torch.float64)
    return u.to(distance).mul_(float(distance.double().norm() / u.norm()))


def signs_like(distance: Tensor, generator: torch.Generator) -> Tensor:
    """Returns `distance` (P,) with signs drawn anew: every entry keeps its size."""
    s = torch.randint(2, distance.shape, generator=generator).to(distance).mul_(2.0).sub_(1.0)
    return s.mul_(distance)


_PERTURBATIONS = {"noise": noise_like, "signs": signs_like}


class EMAOGDPlugin(OGDPlugin):
    """Orthogonal gradient descent with directions at `theta*`, `theta_P` and `theta_S`.

    At an experience's end the gradients of the same samples' logits are taken at each of the `points`,

        v = d phi_k(x_n; theta) / d theta     at theta = theta*, theta_P, theta_S

    point by point in this order, and everything else is OGD's. Three points store up to three directions a sample: to
    compare at equal basis size give plain OGD three times the samples.

    The averages take every step, from the first of the first experience on, and are never started again.

    Attributes:
        plastic: theta_P, with its steps and updates; `plastic.network` is the network.
        stable: theta_S.
    """

    name = "EMAOGD"

    def __init__(
        self,
        n_samples: int = 50,
        points: Points = "averages",
        plastic_alpha: float = 0.9,
        stable_alpha: float = 0.99,
        plastic_rate: float = 1.0,
        stable_rate: float = 1.0,
        variant: Variant = "gtl",
        basis: BasisKind = "auto",
        max_directions: int | None = None,
        memory_limit: int = 2 * 1024**3,
        heads: Heads = "include",
        seed: int = 0,
        tolerance: float = 1e-3,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            n_samples: samples of each experience whose gradients are taken at every point, >= 0; 0 stores none.
            points: "task" is plain OGD; "averages" adds theta_P and theta_S; "averages_only" leaves theta* out.
                Controls: "noise" has theta* + a random vector as long as theta_P - theta*, and one as long as
                theta_S - theta*; "signs" theta* + theta_P - theta* with random signs, and the same with theta_S.
            plastic_alpha: decay of theta_P, in [0, 1].
            stable_alpha: decay of theta_S, in [0, 1].
            plastic_rate: share of the steps that update theta_P, in [0, 1].
            stable_rate: share of the steps that update theta_S, in [0, 1].
            variant: as in `OGDPlugin`.
            basis: as in `OGDPlugin`.
            max_directions: as in `OGDPlugin`; when it is nearly full the points named first come first.
            memory_limit: as in `OGDPlugin`.
            heads: as in `OGDPlugin`; the averages are of all weights.
            seed: of the draw of samples, the same as in `OGDPlugin`, of the averages' coins and the controls' draws.
            tolerance: as in `OGDPlugin`, but larger, because gradients at near points are nearly parallel.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__(n_samples, variant, basis, max_directions, memory_limit, heads, seed, tolerance)
        owner = type(self).__name__
        self.points = POINTS[check_choice(owner, "points", points, Points)]
        self.plastic, self.stable = (
            AveragedNetwork(
                check_number(owner, f"{name}_alpha", alpha, 0.0, 1.0),
                check_number(owner, f"{name}_rate", rate, 0.0, 1.0),
                "ema",
                int(random_state(seed, f"coins of the {name} average").randint(2**31)),
            )
            for name, alpha, rate in (
                ("plastic", plastic_alpha, plastic_rate),
                ("stable", stable_alpha, stable_rate),
            )
        )
        self._averaging = self.n_samples > 0 and len(self.points) > 1
        self._unfollowed = True

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes: that of OGD, and the averages."""
        return super().extra_bytes() + self.plastic.bytes() + self.stable.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        return super().state_dict() | {"plastic": self.plastic.state_dict(), "stable": self.stable.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin.
        """
        super().load_state_dict(state)
        self.plastic.load_state_dict(state["plastic"])
        self.stable.load_state_dict(state["stable"])
        self._unfollowed = True

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Remembers that the network may have been changed: heads, masks, modes."""
        self._unfollowed = True

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Remembers that evaluation may have grown the network."""
        super().after_eval(strategy, *args, **kwargs)
        self._unfollowed = True

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fits buffers and averages again where the network may have been changed."""
        super().before_training_iteration(strategy, *args, **kwargs)
        self._follow(strategy.model)

    def _follow(self, model: nn.Module) -> None:
        if self._averaging and self._unfollowed:
            self.plastic.follow(model)
            self.stable.follow(model)
            self._unfollowed = False

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Projects the step, then lets both averages take it."""
        super().after_update(strategy, *args, **kwargs)
        if self._averaging:
            self.plastic.step_()
            self.stable.step_()

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Stores the experience's directions, and publishes which share of each point's was stored."""
        self._follow(strategy.model)
        super().after_training_exp(strategy, *args, **kwargs)
        for point, kept in self.kept.items():
            self.publish(strategy, f"Kept{_title(point)}", kept / max(1, self.given[point]))
        if self._averaging:
            length = float(_flat(strategy.model).double().norm())
            for name, average in (("plastic", self.plastic), ("stable", self.stable)):
                far = float(_distance(average, strategy.model).double().norm())
                self.publish(strategy, f"Distance{_title(name)}", far / length)

    @torch.no_grad()
    def weights_at(self, point: str, model: nn.Module) -> Mapping[str, Tensor]:
        """Returns the weights of one of `points`, by name; those that are not named are the network's own.

        At the averages batch norm's running statistics are averages, too; elsewhere they are the network's.
        """
        if point == "task":
            return {}
        kind, _, name = point.rpartition("_")
        average = self.plastic if name == "plastic" else self.stable
        if not kind:
            return average.values()
        # numbers of its own for each point and experience: no draw moves another one
        seed = int(random_state(self.seed, point, self.experiences).randint(2**31))
        shift = _PERTURBATIONS[kind](_distance(average, model), torch.Generator().manual_seed(seed))
        parameters = dict(model.named_parameters())
        parts = shift.split([p.numel() for p in parameters.values()])
        return {name: p + part.view_as(p) for (name, p), part in zip(parameters.items(), parts, strict=True)}


def _title(point: str) -> str:
    return point.title().replace("_", "")


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _distance(average: AveragedNetwork, model: nn.Module) -> Tensor:
    """Returns `theta_E - theta`, (P,), of a network that the average follows."""
    assert average.network is not None
    return _flat(average.network) - _flat(model)
