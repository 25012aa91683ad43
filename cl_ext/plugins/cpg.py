"""Compacting, Picking and Growing (Hung et al., NeurIPS 2019); without picking it is PAE (Hung et al., ICMR 2019).

Symbols: `t` the position of a task, `m` the multiplier of the network's parameters.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from cl_ext.nn.holdout import split
from cl_ext.nn.phases import run_epochs, run_iterations, train_all
from cl_ext.nn.picking import Picks, mask_rate
from cl_ext.nn.schedules import check_schedules
from cl_ext.nn.snapshot import Snapshot
from cl_ext.nn.sparsity import allowed_share
from cl_ext.plugins.checks import check_count, check_number
from cl_ext.plugins.cpg_goal import Goal, Goals, check_goal
from cl_ext.plugins.cpg_growth import base_widths, grow, grown_widths
from cl_ext.plugins.cpg_phases import MeasuredPhases, check_ladder

import torch

LADDER = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class CPGPlugin(MeasuredPhases):
    """Compacting, Picking and Growing, on an expandable network.

    For each task:

    1. The strategy's own epochs train all weights that nobody owns, with the weights of earlier tasks that a binary
       mask picks, which is learned beside them with straight-through gradients. Where the accuracy stays below the
       task's goal, the network grows, and this begins again from what was there before the task.
    2. The task's weights are pruned along a ladder of rising ratios, each rung gradually, with some training after it.
       The largest ratio is kept at which the goal is still reached; what is pruned is free for later tasks.
    3. From the second task on, the picking is learned anew with what is left; this is kept if it is better.

    Decisions are taken on samples of the experience that are held out of its training. Earlier tasks' outputs stay as
    they are, bit for bit, under any optimizer.

    Attributes:
        decisions: a dictionary of JSON values for each task: its goal, the attempts at each width, the rungs of the
            ladder, the ratio that was chosen, and what came of the last stage.
        width: m of the network as it is now.
    """

    name = "CPG"

    def __init__(
        self,
        goal: Goal = "single_task",
        tolerance: float = 0.0,
        max_width: float = 1.5,
        grow_step: float = 0.5,
        ladder: Sequence[float] = LADDER,
        prune_epochs: float = 4.0,
        recover_epochs: float = 16.0,
        retrain_epochs: float = 30.0,
        patience: int = 5,
        mask_every: int = 10,
        train_floor: float = 0.95,
        stop_at_goal: bool = False,
        picking: bool = True,
        mask_lr: float = 5e-4,
        retrain_mask_lr: float = 1e-4,
        lr_factor: float = 0.1,
        hold_out: float = 0.1,
        tasks: int | None = None,
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            goal: the accuracy on held-out samples that a task has to reach, >= 0: a number, numbers by task label, or
                "single_task", that of a copy of the initial network that is trained for this task alone, as the
                strategy would train it.
            tolerance: taken off the goal, >= 0.
            max_width: the largest m, >= 1; 1 never grows. Growing needs features that are a chain of layers.
            grow_step: what m grows by at a time, > 0.
            ladder: ratios in (0, 1), rising: the shares of a layer's free and own weights that are to be free. Without
                any, a task keeps all its weights (Piggyback, from the second task on).
            prune_epochs: of each rung, in which the ratio rises, >= 0; a part of an epoch is allowed. With 0 it jumps.
            recover_epochs: of each rung, after them, >= 0.
            retrain_epochs: of the third stage, >= 0.
            patience: checks, one an epoch, without a better accuracy that end the third stage, >= 1.
            mask_every: steps between two prunings while the ratio rises, >= 1.
            train_floor: the training accuracy (of a phase's last epoch) that has to be exceeded for a width or a rung
                to be good, in [0, 1].
            stop_at_goal: whether the ladder ends at the first rung that misses the goal. The authors' goes on.
            picking: False is PAE: all weights of earlier tasks are used.
            mask_lr: Adam's learning rate of the masks in the first stage, >= 0; a fifth of it after half of the epochs,
                and 0 after 70 % of them where the task has weights of its own.
            retrain_mask_lr: that of the third stage, >= 0.
            lr_factor: of the experience's first learning rate in the later stages, > 0; no schedule steps there.
            hold_out: the share of an experience's samples that are held out, in [0, 1). With 0, or a single sample,
                decisions are taken on the training samples.
            tasks: the number of tasks, >= 1, if it is known: it says what a task that misses its goal at the largest
                width must leave to those to come.
            seed: of the held-out samples, of new weights and of the single tasks' batches.

        Raises:
            TypeError: if an argument is of a wrong kind.
            ValueError: if an argument is out of its range.
        """
        owner = type(self).__name__
        lr_factor = check_number(owner, "lr_factor", lr_factor, 0.0, above=True)
        super().__init__(lr_factor, check_count(owner, "mask_every", mask_every))
        self.goal = check_goal(owner, goal)
        self.tolerance = check_number(owner, "tolerance", tolerance, 0.0)
        self.max_width = check_number(owner, "max_width", max_width, 1.0)
        self.grow_step = check_number(owner, "grow_step", grow_step, 0.0, above=True)
        self.ladder = check_ladder(owner, ladder)
        self.prune_epochs = check_number(owner, "prune_epochs", prune_epochs, 0.0)
        self.recover_epochs = check_number(owner, "recover_epochs", recover_epochs, 0.0)
        self.retrain_epochs = check_number(owner, "retrain_epochs", retrain_epochs, 0.0)
        self.patience = check_count(owner, "patience", patience)
        self.train_floor = check_number(owner, "train_floor", train_floor, 0.0, 1.0)
        self.stop_at_goal = bool(stop_at_goal)
        self.picking = bool(picking)
        self.mask_lr = check_number(owner, "mask_lr", mask_lr, 0.0)
        self.retrain_mask_lr = check_number(owner, "retrain_mask_lr", retrain_mask_lr, 0.0)
        self.hold_out = check_number(owner, "hold_out", hold_out, 0.0, 1.0)
        if self.hold_out == 1.0:
            raise ValueError(f"{owner}: hold_out must be below 1, got {hold_out!r}")
        self.total = None if tasks is None else check_count(owner, "tasks", tasks)
        seed = check_count(owner, "seed", seed, low=0)
        self._generators = {
            name: torch.Generator().manual_seed(3 * seed + number)
            for number, name in enumerate(("held", "grown", "single"))
        }
        self.decisions: list[dict[str, Any]] = []
        self.width = 1.0
        self._base: list[int] = []
        self._goals = Goals(self.goal, self._generators["single"])
        self._goal = 0.0
        self._start: Snapshot | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The decisions, by the name under which records keep what a method tells of its tasks."""
        return self.decisions

    # ---- state ---------------------------------------------------------------------------------------------------

    def extra_bytes(self) -> int:
        """Returns the memory held beside the weights, in bytes; the initial network counts where goals need it."""
        return super().extra_bytes() + self._goals.extra_bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        return super().state_dict() | {
            "decisions": copy.deepcopy(self.decisions),
            "width": self.width,
            "base": list(self._base),
            "initial": self._goals.state(),
            "generators": {name: generator.get_state() for name, generator in self._generators.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin.
        """
        super().load_state_dict(state)
        self.decisions = copy.deepcopy(list(state["decisions"]))
        self.width, self._base = float(state["width"]), [int(units) for units in state["base"]]
        self._goals.load(state["initial"])
        for name, generator in self._generators.items():
            generator.set_state(state["generators"][name])

    # ---- the begin of a task ---------------------------------------------------------------------------------------

    def after_train_dataset_adaptation(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts samples aside before the loader is made."""
        train, held = split(strategy.adapted_dataset, self.hold_out, self._generators["held"])
        strategy.adapted_dataset = train
        self._held = held if len(held) else train

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Begins the experience's task and sets its goal.

        Raises:
            TypeError: if the network is to grow, and cannot.
            ValueError: if it is to grow and the optimizer has several groups or a schedule `first_epoch_only`, or the
                goals lack the task.
        """
        network = self.network(strategy)
        if self.max_width > 1.0:
            if len(strategy.optimizer.param_groups) != 1:
                raise ValueError("CPGPlugin refills the optimizer when it grows: give it all parameters in one group")
            check_schedules(strategy, "CPGPlugin")
            self._base = self._base or base_widths(network)
        self._goals.prepare(network)
        task = self.begin(strategy)
        self._goal = max(0.0, self._goals.of(strategy, task, self._held) - self.tolerance)
        self.decisions.append({"task": task, "goal": self._goal, "attempts": [], "rungs": []})
        self._begin_training(strategy)

    def _begin_training(self, strategy: Any) -> None:
        """Begins the first stage at the present width, from what is in the network."""
        self._picks = None
        if self.picking and self.now > 1:
            owners = self.scheme.owners
            earlier = {name: (owners[name] > 0) & (owners[name] < self.now) for name in owners.names}
            self._picks = Picks(self.weights(), earlier)
        self.scheme.live = self._picks
        self._start = Snapshot(self.tensors_of_training()) if self.width < self.max_width else None
        strategy.optimizer.state.clear()
        self.hold()
        steps = len(strategy.dataloader)
        owns, total = self.owns(), max(1, steps * strategy.train_epochs)
        self.begin_phase(steps, mask_lr=lambda step: self.mask_lr * mask_rate(step / total, owns))

    # ---- the end of a task -----------------------------------------------------------------------------------------

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Grows while it has to, compacts, picks anew, and ends the task."""
        held = self._grow_until_good(strategy)
        if self.owns():
            held = self._climb(strategy, held)
            if self.now > 1 and self.retrain_epochs > 0:
                held = self._retrain(strategy, held)
        self._finish(strategy, held)

    def _grow_until_good(self, strategy: Any) -> float:
        attempts = self.decisions[-1]["attempts"]
        while True:
            train, held = self.accuracies(strategy)
            attempts.append({"width": self.width, "train": train, "held": held})
            if (train > self.train_floor and held >= self._goal) or self.width >= self.max_width:
                self._start = None
                return held
            self._widen(strategy)
            with self.begun.again(strategy):
                run_epochs(strategy, strategy.train_epochs)

    def _widen(self, strategy: Any) -> None:
        """Goes back to where the task began, widens the network and begins again."""
        assert self._network is not None  # set when the task began
        assert self._start is not None  # kept while there is room to grow
        self._start.restore()
        self.width = min(self.max_width, self.width + self.grow_step)
        widths = grown_widths(self._base, self.width)
        grow(self._network, self.scheme, widths, self._task, self._generators["grown"])
        self.scheme.owners.claim(self.now)
        train_all(strategy)
        self._begin_training(strategy)

    def _climb(self, strategy: Any, held: float) -> float:
        """Compacts along the ladder, goes back to the rung that is chosen, and returns its held-out accuracy."""
        decision = self.decisions[-1]
        forced = held < self._goal
        remaining = None if self.total is None else max(0, self.total - self.now)
        needed = 1.0 - allowed_share(remaining) if forced else 0.0
        decision |= {"forced": forced, "ratio": 0.0}
        best, kept, ratio = Snapshot(self.tensors_of_training()), held, 0.0
        steps = len(strategy.dataloader)
        for target in self.ladder:
            if forced and ratio >= needed - 1e-9:
                break
            self.rung(strategy, ratio, target, round(self.prune_epochs * steps), round(self.recover_epochs * steps))
            ratio, (train, held) = target, self.accuracies(strategy)
            decision["rungs"].append({"ratio": target, "train": train, "held": held})
            if not forced and train <= self.train_floor:
                break
            if forced or held >= self._goal:
                best, kept = Snapshot(self.tensors_of_training()), held
                decision["ratio"] = target
            elif self.stop_at_goal:
                break
        best.restore()
        self.hold()
        return kept

    def _retrain(self, strategy: Any, held: float) -> float:
        """Learns the picking anew; keeps the compacted task or a better one, and returns its held-out accuracy."""
        before, steps = held, len(strategy.dataloader)
        left = round(self.retrain_epochs * steps)
        best, worse = Snapshot(self.tensors_of_training()), 0
        if self._picks is not None:
            self._picks.reset()
        with self.later_phase(strategy, mask_lr=lambda step: self.retrain_mask_lr):
            while left > 0 and worse < self.patience:
                ran = run_iterations(strategy, min(left, steps))
                now = self.held_accuracy(strategy)
                worse += 1
                if now > held:
                    best, held, worse = Snapshot(self.tensors_of_training()), now, 0
                left = left - ran if ran else 0
        best.restore()
        self.decisions[-1]["retrain"] = {"before": before, "after": held, "kept": held > before}
        return held

    def _finish(self, strategy: Any, held: float) -> None:
        decision = self.decisions[-1] | {"held": held, "width": self.width, "picked": self.picked()}
        self.decisions[-1] = decision
        for quantity, name in (("Goal", "goal"), ("HeldOut", "held"), ("Width", "width"), ("Picked", "picked")):
            self.publish(strategy, quantity, decision[name])
        self.publish(strategy, "Ratio", decision.get("ratio", 0.0))
        self.close(strategy)
        self._picks = self._mask_optimizer = self._start = self._held = None
        self.begin_phase(1)
