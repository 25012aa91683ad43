"""DualNet (Pham, Liu, Hoi, NeurIPS 2021): a slow net that learns without labels, and a fast one that adapts it.

Symbols: `phi` the slow net's weights, `K` steps of a phase, `beta` Look-ahead's factor, `lambda` the distillation's
strength, `z_t` stored logits. `docs/methods/dualnet.md` has the equations, and where paper and authors' code differ.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from cl_ext.models.slowfast import SlowFast, slow_fast_of
from cl_ext.nn.correlation import WeightKind
from cl_ext.nn.divergence import DivergedError
from cl_ext.nn.parameters import trainable_parameters
from cl_ext.nn.passes import evaluation_mode, logits
from cl_ext.nn.selfsupervised import Deviation
from cl_ext.nn.targets import KLReduction, TargetMemory, Targets
from cl_ext.nn.views import Views, two_views
from cl_ext.plugins.base import MethodPlugin
from cl_ext.plugins.checks import check_choice, check_count, check_number
from cl_ext.plugins.dualnet_fast import FastPhase, further_step
from cl_ext.plugins.dualnet_features import Consolidation, FeatureUses
from cl_ext.plugins.dualnet_slow import SlowNorm, SlowPhase

import torch
from torch import Tensor

Preset = Literal["paper", "code"]
SSLSource = Literal["memory", "memory+stream"]
Recording = Literal["eval", "train"]

_PAPER = {"kl": "batchmean", "ssl_source": "memory+stream", "std": "biased", "slow_norm": "keep", "targets": "boundary",
          "recording": "eval"}  # fmt: skip
_CODE = {"kl": "mean_times_batch", "ssl_source": "memory", "std": "unbiased", "slow_norm": "interpolate",
         "targets": "boundary_stale", "recording": "train"}  # fmt: skip
_CODE_TASK_AWARE = _CODE | {"kl": "mean", "targets": "boundary"}


class DualNetPlugin(MethodPlugin):
    """DualNet around any strategy that trains a slow/fast pair (`cl_ext.models.dualnet`, `dualnet_resnet18`).

    For each batch (x, y) of experience t, which first goes into the memory:

        slow    n_outer times: inner_steps steps of SGD on Barlow Twins of two views, by slow net and projector alone;
                then phi <- phi_0 + beta (phi_K - phi_0)
        fast    fast_steps times, by the strategy's optimizer on all weights: L(x, y), and from the second experience on
                + L(memory) + lambda KL(softmax(z_t / T) || softmax(z / T))

    with L the strategy's own loss. The first fast step is the strategy's own, the others go through all of its
    callbacks once more; the logged loss is the last one's. A softmax of the distillation is over the classes that L
    compares.

    With `n_outer=0, mem_size=0, fast_steps=1` it is the strategy without the plugin, bit for bit.

    Attributes:
        experiences: how many experiences have been trained on to their end.
    """

    name = "DualNet"

    def __init__(
        self,
        dualnet_lambda: float | None = None,
        mem_size: int | None = None,
        mem_batch_size: int = 10,
        task_aware: bool = False,
        preset: Preset = "paper",
        *,
        n_outer: int = 2,
        inner_steps: int = 2,
        fast_steps: int = 2,
        beta: float = 0.05,
        slow_lr: float = 3e-4,
        ssl_batch_size: int = 32,
        gamma: float = 2e-3,
        projection: tuple[int, int] = (256, 512),
        temperature: float = 2.0,
        kl: KLReduction | None = None,
        ssl_source: SSLSource | None = None,
        std: Deviation | None = None,
        slow_norm: SlowNorm | None = None,
        targets: Targets | None = None,
        recording: Recording | None = None,
        feature_lambda: float = 0.0,
        feature_weights: WeightKind = "correlation",
        feature_decay: float = 0.99,
        consolidation: Consolidation = "constant",
        drift: bool = False,
        views: Views = two_views,
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters; the authors' values where nothing else is said.

        Args:
            dualnet_lambda: lambda, strength of the distillation, >= 0; None for 10 in preset "code", and in "paper" for
                the 2 that their 10 amounts to, task-aware with 5 classes, when a mean over samples is taken.
            mem_size: samples kept, >= 0: task-free in all, task-aware of each experience; None for 5000 and 50.
            mem_batch_size: samples of memory in a fast step, >= 1.
            task_aware: whether the memory is a ring for each experience, of which earlier ones are replayed, as in the
                authors' task-aware setting; otherwise one reservoir of all that was seen. Heads are the loss's matter.
            preset: what the choices below are where they are not given.
            n_outer: rounds of Look-ahead for each batch, >= 0; their scripts have 2 at one place and none at others.
            inner_steps: steps of a round, >= 1.
            fast_steps: steps of the fast phase, >= 1; in their code always `inner_steps`.
            beta: Look-ahead's factor, in [0, 1]; 1 is plain SGD.
            slow_lr: learning rate of the slow phase, > 0.
            ssl_batch_size: samples of memory in a slow step, >= 2.
            gamma: weight of Barlow Twins' off-diagonal, >= 0.
            projection: hidden and output units of the projector, each >= 1.
            temperature: T > 0.
            kl: how the distillation is averaged: "batchmean" (paper) over samples; "mean" (code, task-aware) over
                samples and classes; "mean_times_batch" (code, task-free) that times the samples.
            ssl_source: what the slow phase sees: "memory+stream" (paper) both; "memory" (code) memory alone, and the
                stream's batch while in the first experience.
            std: of Barlow Twins: "biased" (paper) is a correlation, "unbiased" (code) is smaller by (N - 1) / N.
            slow_norm: what Look-ahead does with the slow net's running statistics: "keep" (paper) as the inner steps
                have left them, "interpolate" (code), or "restore" what was before the slow phase.
            targets: "boundary" (paper; code, task-aware), "boundary_stale" (code, task-free) or "write"; see
                `cl_ext.nn.targets.TargetMemory`.
            recording: mode of the network while targets are recorded: "eval" (paper) or "train" (code), in which batch
                norm's running statistics move.
            feature_lambda: strength, >= 0, of holding the slow net's features of older samples. This and the next four
                are not in the paper; see `cl_ext.plugins.dualnet_features`.
            feature_weights: which to hold: "correlation", or the controls "identity", "shuffled", "variance".
            feature_decay: of the running correlation matrix, in [0, 1).
            consolidation: "invariance" scales beta by the matrix's mean diagonal, "constant" does not.
            drift: whether to publish how far the slow net's features drift; always where `feature_lambda` > 0.
            views: makes two views of a batch; images get crops, flips, colours and blur, other samples corruption.
            seed: of the plugin's own generators, >= 0: memory, views, projector.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        owner = type(self).__name__
        check_choice(owner, "preset", preset, Preset)
        default: dict[str, Any] = _PAPER if preset == "paper" else _CODE_TASK_AWARE if task_aware else _CODE
        self.preset: Preset = preset
        self.task_aware = bool(task_aware)
        strength = (10.0 if preset == "code" else 2.0) if dualnet_lambda is None else dualnet_lambda
        self.dualnet_lambda = check_number(owner, "dualnet_lambda", strength, 0.0)
        size = (50 if task_aware else 5000) if mem_size is None else mem_size
        self.mem_size = check_count(owner, "mem_size", size, low=0)
        self.mem_batch_size = check_count(owner, "mem_batch_size", mem_batch_size)
        self.ssl_batch_size = check_count(owner, "ssl_batch_size", ssl_batch_size, low=2)
        self.fast_steps = check_count(owner, "fast_steps", fast_steps)
        self.temperature = check_number(owner, "temperature", temperature, 0.0, above=True)
        self.kl: KLReduction = check_choice(owner, "kl", kl or default["kl"], KLReduction)
        self.ssl_source: SSLSource = check_choice(owner, "ssl_source", ssl_source or default["ssl_source"], SSLSource)
        self.targets: Targets = check_choice(owner, "targets", targets or default["targets"], Targets)
        self.recording: Recording = check_choice(owner, "recording", recording or default["recording"], Recording)
        self.seed = check_count(owner, "seed", seed, low=0)
        hidden, outputs = projection
        self.slow = SlowPhase(
            check_count(owner, "n_outer", n_outer, low=0),
            check_count(owner, "inner_steps", inner_steps),
            check_number(owner, "beta", beta, 0.0, 1.0),
            check_number(owner, "slow_lr", slow_lr, 0.0, above=True),
            check_number(owner, "gamma", gamma, 0.0),
            check_choice(owner, "std", std or default["std"], Deviation),
            check_choice(owner, "slow_norm", slow_norm or default["slow_norm"], SlowNorm),
            (check_count(owner, "projection", hidden), check_count(owner, "projection", outputs)),
            views,
            self.seed,
        )
        self.features = FeatureUses(
            owner, feature_lambda, feature_weights, feature_decay, consolidation, drift, n_outer > 0, self.seed
        )
        self.slow.features = self.features
        self.fast = FastPhase(self.dualnet_lambda, self.temperature, self.kl, self.features)
        self._memory = TargetMemory(self.mem_size, self.task_aware, self.targets, self.seed)
        self._trunk: SlowFast | None = None
        self._batch: list[Tensor] = []

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes: samples, targets, projector, Look-ahead's weights."""
        return self._memory.bytes() + self.slow.bytes() + self.features.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        parts = {"memory": self._memory.state_dict(), "slow": self.slow.state_dict()}
        return super().state_dict() | parts | {"features": self.features.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin.
        """
        super().load_state_dict(state)
        self._memory.load_state_dict(state["memory"])
        self.slow.load_state_dict(state["slow"])
        self.features.load_state_dict(state["features"])

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Records the targets of what is in memory, with the network as it is."""
        trainable_parameters(strategy.model)
        self._trunk = slow_fast_of(strategy.model)
        self.fast.begin_experience()
        self._memory.to(strategy.device)
        self.slow.to(strategy.device)
        self.features.begin(self._trunk, strategy.device)
        if self.experiences == 0:
            return
        if self.recording == "train":
            self._memory.begin_task(lambda x: logits(strategy.model, x, None))
        else:
            with evaluation_mode(strategy.model):
                self._memory.begin_task(lambda x: logits(strategy.model, x, None))

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts the epoch's means."""
        self.slow.begin()
        self.fast.begin()

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Writes the batch into the memory, in the first epoch only, and runs the slow phase."""
        self._batch = list(strategy.mbatch)
        x, y = self._batch[:2]
        if strategy.clock.train_exp_epochs == 0:
            self._memory.add(x, y, self._logits_at_write(strategy, x))
        assert self._trunk is not None
        self.slow.run(self._trunk, lambda: self._unlabelled(x))

    def _logits_at_write(self, strategy: Any, x: Tensor) -> Tensor | None:
        if self.targets != "write" or self.mem_size == 0:
            return None
        with evaluation_mode(strategy.model), torch.no_grad():
            return logits(strategy.model, x, None)

    def _unlabelled(self, x: Tensor) -> Tensor:
        """Returns the samples of a slow step."""
        if self.ssl_source == "memory" and self.experiences == 0:
            return x
        held = self._memory.sample(self.ssl_batch_size)
        if held is None:
            return x
        return held["x"] if self.ssl_source == "memory" else torch.cat([held["x"], x])

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds the memory's loss and the distillation."""
        if self.experiences == 0:
            return
        batch = self._memory.sample(self.mem_batch_size)
        if batch is None:
            return
        assert self._trunk is not None
        self.fast.add(strategy, self._trunk, batch)

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Makes the fast phase's further steps, once every plugin is through with the first."""
        for _ in range(self.fast_steps - 1):
            strategy.mbatch = list(self._batch)  # other plugins may have added samples of theirs
            further_step(strategy, **kwargs)
        self._batch = []

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the epoch's means.

        Raises:
            DivergedError: if the slow phase's loss is not finite.
        """
        means = self.slow.means() | self.fast.means()
        assert self._trunk is not None
        drift = self.features.drift(self._trunk, lambda: self._memory.sample(len(self._memory)))
        for name, value in (means if drift is None else means | {"FeatureDrift": drift}).items():
            self.publish(strategy, name, value)
        loss = means.get("BarlowTwins", 0.0)
        if not math.isfinite(loss):
            raise DivergedError(
                f"DualNetPlugin: the slow phase's loss is {loss}: slow_lr {self.slow.slow_lr:g}, the optimizer's "
                f"learning rate or dualnet_lambda {self.dualnet_lambda:g} is too large"
            )

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Counts the experience, and keeps what the next one holds on to."""
        assert self._trunk is not None
        self.features.end(self._trunk)
        self._trunk = None
        self.experiences += 1
