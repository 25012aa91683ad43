"""Dynamically expandable networks (Yoon, Yang, Lee and Hwang, ICLR 2018).

Symbols as in the paper: mu the strength of l1, gamma of the groups', lambda of the pull to the weights of before, tau
the loss above which the network grows, sigma the drift above which a unit is split, k the units that are added, S the
selected units. `docs/methods/den.md` has the equations, what was decided where the paper says nothing, and the
deviations.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.nn.heads import Head
from cl_ext.nn.passes import evaluation_mode
from cl_ext.nn.phases import run_epochs, run_iterations, train_all, training_only
from cl_ext.nn.schedules import ScheduleState, check_schedules
from cl_ext.nn.scheme import Scheme
from cl_ext.nn.splitting import Outgoing, drifted
from cl_ext.nn.stamped import Stamped
from cl_ext.plugins import den_phases as phases
from cl_ext.plugins import den_rules as rules
from cl_ext.plugins.architecture import ExpandablePlugin
from cl_ext.plugins.checks import check_choice, check_count, check_number
from cl_ext.plugins.den_rules import Before, Rules

import torch
from torch import nn


class DENPlugin(ExpandablePlugin):
    """Dynamically expandable network: selective retraining, expansion, splitting, time stamps.

    The first task is trained with l1. Each later one, t, goes through

    1. its sparse head alone; S, the units that this depends on (before the strategy's own epochs);
    2. the weights between units of S alone (the strategy's own epochs);
    3. where its mean training loss is above tau: k new units a hidden layer, trained alone with l1 and a penalty a
       unit; those whose incoming weights are all 0 are taken out;
    4. all weights, pulled to those before the task; units that moved by more than sigma are split: the original gets
       its old weights back, a copy keeps the new ones; all weights once more.

    A task reads the units that there were when its training ended, and needs its label. Old units that are not split
    keep what they learnt: older tasks change with them. Heads of older tasks never change.

    The network is an expandable chain of linear layers and convolutions (`cl_ext.models.expandable`), with activations
    that map 0 to 0. Batch norm is each task's own.

    Attributes:
        history: a task each: its label `task`, whether its sparse head read any unit (`head_reads`; if not, all were
            selected), the mean training `loss` before growth (None for the first task),
            whether it `grew`, and `layers`: by hidden layer the units `selected`, `added`, `split` and there at the end
            (`units`), and the largest `drift`.
    """

    name = "DEN"

    def __init__(
        self,
        mu: float = 1e-4,
        gamma: float = 1e-3,
        tau: float = 0.01,
        sigma: float = 0.05,
        den_lambda: float = 0.25,
        k: int = 10,
        l2: float = 1e-4,
        head_share: float = 0.5,
        expand_share: float = 1.0,
        drift_share: float = 0.2,
        retrain_share: float = 0.2,
        iterations: int | None = None,
        expand: bool = True,
        split: bool = True,
        stamp: bool = True,
        constant: int = 0,
        split_outgoing: Outgoing = "replace",
        freeze_restored: bool = False,
        max_splits: int | None = None,
        eps: float = 0.0,
        prox_step: float | None = None,
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters; mu, gamma, tau and sigma of the paper are not known.

        Args:
            mu: of l1, >= 0: in the first task, in the sparse head, in new weights, and in step 4. In units of the loss.
            gamma: of the penalty of a new unit's incoming weights as a group, >= 0.
            tau: the mean training loss above which the network grows; a negative one always grows it.
            sigma: the drift above which a unit is split, >= 0; a Euclidean norm over its incoming weights and its bias.
            den_lambda: lambda of `lambda |W - W^{t-1}|^2` in step 4, >= 0.
            k: units that are added to each hidden layer, >= 1.
            l2: of `l2 / 2 |W|^2` on the weights that a phase trains, >= 0.
            head_share: of a phase's iterations that the head's gets, >= 0.
            expand_share: the same of the new units' phase.
            drift_share: the same of the phase before splitting; with 0 the drift is that of step 2.
            retrain_share: the same of the phase after splitting, which only runs where a unit was split.
            iterations: of a phase; None for as many as the strategy's epochs have. Step 2 and the first task always
                take the strategy's epochs.
            expand: whether step 3 happens.
            split: whether step 4 happens.
            stamp: whether tasks are kept from later units.
            constant: the ablation that adds so many units at each task, whatever its loss, without sparsity, and takes
                none out; 0 for growth as above.
            split_outgoing: "replace" lets the latest task read a copy in place of its original, "duplicate" beside it.
            freeze_restored: units that are as before the task after splitting stay so: with sigma 0 older tasks are
                exact. No part of the paper.
            max_splits: of a hidden layer in a task, those that moved most; None for all.
            eps: weights of at most that size count as 0 when units are selected, >= 0.
            prox_step: the step of the proximal operator; None for the optimizer's learning rate. With Adam, whose steps
                are not in units of the gradient, `prox_step * mu` is what a step takes off a weight.
            seed: of the new units' weights.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        owner = type(self).__name__
        self.mu = check_number(owner, "mu", mu, 0.0)
        self.gamma = check_number(owner, "gamma", gamma, 0.0)
        self.tau = check_number(owner, "tau", tau, -math.inf)
        self.sigma = check_number(owner, "sigma", sigma, 0.0)
        self.den_lambda = check_number(owner, "den_lambda", den_lambda, 0.0)
        self.k = check_count(owner, "k", k)
        self.l2 = check_number(owner, "l2", l2, 0.0)
        self.head_share = check_number(owner, "head_share", head_share, 0.0)
        self.expand_share = check_number(owner, "expand_share", expand_share, 0.0)
        self.drift_share = check_number(owner, "drift_share", drift_share, 0.0)
        self.retrain_share = check_number(owner, "retrain_share", retrain_share, 0.0)
        self.iterations = None if iterations is None else check_count(owner, "iterations", iterations)
        self.expand, self.split, self.stamp = bool(expand), bool(split), bool(stamp)
        self.constant = check_count(owner, "constant", constant, low=0)
        self.split_outgoing = check_choice(owner, "split_outgoing", split_outgoing, Outgoing)
        self.freeze_restored = bool(freeze_restored)
        self.max_splits = None if max_splits is None else check_count(owner, "max_splits", max_splits, low=0)
        self.eps = check_number(owner, "eps", eps, 0.0)
        self.prox_step = None if prox_step is None else check_number(owner, "prox_step", prox_step, 0.0, above=True)
        self._generator = torch.Generator().manual_seed(check_count(owner, "seed", seed, low=0))
        self.history: list[dict[str, Any]] = []
        self._rules: Rules | None = None
        self._before: Before | None = None
        self._begun: ScheduleState | None = None
        self._bytes = self._kept = 0

    # ---- before the strategy's own epochs ------------------------------------------------------------------------

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Begins the task: of the first one only the rules, of later ones the sparse head and the selection.

        Raises:
            TypeError: if the network cannot be trained by this plugin.
            ValueError: if a layer is frozen, a schedule is `first_epoch_only`, or the task has no label of its own.
        """
        network = self.network(strategy)
        stages = network.stages
        phases.check_stages(stages)
        check_schedules(strategy, "DENPlugin")
        task = self.begin_task(strategy)
        if type(network.scheme) is Scheme:
            network.scheme = Stamped(self.stamp).to(strategy.device)
        elif not isinstance(network.scheme, Stamped):
            raise TypeError(f"DENPlugin: the network's tasks are read in the way of another method, "
                            f"{network.scheme.label!r}")  # fmt: skip
        for other in network.heads.tasks:
            if other != task:
                network.heads[other].requires_grad_(False)
                network.heads[other].zero_grad(set_to_none=True)
        head = network.heads[task]
        weights = rules.weights_of(stages, head)
        if len(self.tasks) == 1:
            self.history.append(phases.begun_record(task, stages, [stage.units for stage in stages]))
            self._rules = Rules(weights, self.l2, shrink=rules.shrinking(weights, self.mu))
            return
        self._before, self._begun = Before.of(stages), ScheduleState(strategy)
        with evaluation_mode(network.features):
            sparse = Rules([head.weight], self.l2, shrink=rules.shrinking([head.weight], self.mu))
            self._run(strategy, self.head_share, list(head.parameters()), sparse)
        chosen, read = phases.select(stages, head, self.eps)
        self.history.append(phases.begun_record(task, stages, [int(units.sum()) for units in chosen], read))
        self._rules = Rules(weights, self.l2, hold=rules.hold_unselected(network, stages, head, chosen))
        self._count_bytes()

    def _note(self, quantity: str, values: Sequence[float]) -> None:
        for layer, value in zip(self.history[-1]["layers"].values(), values, strict=True):
            layer[quantity] = value

    # ---- steps ---------------------------------------------------------------------------------------------------

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds the gradients of the phase's penalties."""
        if self._rules is not None:
            self._rules.add_gradients()

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Takes the proximal step, and puts back what the phase does not train."""
        super().after_update(strategy)
        if self._rules is not None:
            self._rules.finish(self.prox_step or strategy.optimizer.param_groups[0]["lr"])

    def _run(self, strategy: Any, share: float, parameters: list[nn.Parameter], chosen: Rules) -> None:
        """Trains some parameters under chosen rules for a share of a phase's iterations, at the begin's rate."""
        assert self._begun is not None  # set when the task began
        self._rules = chosen
        with self._begun.phase(strategy), training_only(strategy, parameters):
            if self.iterations is None and share == 1.0:
                run_epochs(strategy, strategy.train_epochs)
            elif share:
                whole = self.iterations or strategy.train_epochs * len(strategy.dataloader)
                run_iterations(strategy, max(1, round(share * whole)))
        self._rules = None

    # ---- after the strategy's own epochs -------------------------------------------------------------------------

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Expansion, drift and split, and the task's stamps."""
        network, task, record = self.network(strategy), self.tasks[-1], self.history[-1]
        self._rules = None
        head = network.heads[task]
        if self._before is not None:
            record["loss"] = phases.mean_loss(strategy, network)
            self.check_loss(strategy, record["loss"], "den_lambda")
            if self.expand and (self.constant or record["loss"] > self.tau):
                self._expand(strategy, network, head, self._before)
            if self.split:
                self._split(strategy, network, head, self._before)
            train_all(strategy)  # layers have new tensors
        self._before = self._begun = None
        stages = network.stages
        self._note("units", [stage.units for stage in stages])
        scheme = network.scheme
        assert isinstance(scheme, Stamped)  # set when the task began
        scheme.stamp(stages, task)
        self._kept = sum(tensor.nbytes for tensor in scheme.buffers())
        self.experiences += 1
        self._publish(strategy, record)

    def _expand(self, strategy: Any, network: ExpandableNetwork, head: Head, before: Before) -> None:
        stages, count = network.stages, self.constant or self.k
        added = [count] * len(stages)
        phases.grow(network, stages, head, count, self._generator)
        mu, gamma = (0.0, 0.0) if self.constant else (self.mu, self.gamma)
        hold = rules.hold_old(network, stages, head, before)
        shrink = rules.shrinking_new(stages, head, before, mu, gamma)
        growth = Rules(rules.weights_of(stages, head), self.l2, shrink=shrink, hold=hold)
        self._run(strategy, self.expand_share, rules.trained(network, head), growth)
        if not self.constant:
            added = phases.remove_silent(network, stages, head, before)
        self.history[-1]["grew"] = True
        self._note("added", added)

    def _split(self, strategy: Any, network: ExpandableNetwork, head: Head, before: Before) -> None:
        stages = network.stages
        strengths = self.l2, self.den_lambda, self.mu
        pulled = rules.pulled_back(stages, head, before, *strengths)
        self._run(strategy, self.drift_share, rules.trained(network, head), pulled)
        rho = rules.drifts(stages, before)
        chosen = [drifted(each, self.sigma, self.max_splits) for each in rho]
        self._note("split", [len(rows) for rows in chosen])
        self._note("drift", [float(each.max()) for each in rho])
        if not any(len(rows) for rows in chosen):
            return
        phases.split(network, stages, head, before, chosen, self.split_outgoing, self._generator)
        hold = None
        if self.freeze_restored:
            hold = rules.hold_restored(stages, before, rho, chosen)
        again = rules.pulled_back(network.stages, head, before, *strengths, hold)
        self._run(strategy, self.retrain_share, rules.trained(network, head), again)

    def _publish(self, strategy: Any, record: Mapping[str, Any]) -> None:
        if record["loss"] is not None:
            self.publish(strategy, "loss_gate", record["loss"])
        for layer, quantities in record["layers"].items():
            for quantity, value in quantities.items():
                self.publish(strategy, f"{quantity}_{layer}", float(value))

    # ---- cost and state ------------------------------------------------------------------------------------------

    def _count_bytes(self) -> None:
        """Bytes held while the task is trained: the weights of before, and what the guard holds."""
        hold = self._rules.hold if self._rules is not None else None
        before = 0 if self._before is None else self._before.extra_bytes()
        self._bytes = before + (0 if hold is None else hold.extra_bytes())

    def extra_bytes(self) -> int:
        """Bytes held beside the network while the latest task was trained, and what ended tasks keep of their own."""
        return self._bytes + self._kept

    def state_dict(self) -> dict[str, Any]:
        """Adds the history and the generator of new units' weights."""
        return super().state_dict() | {
            "history": copy.deepcopy(self.history),
            "generator": self._generator.get_state(),
            "bytes": self._bytes,
            "kept": self._kept,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        super().load_state_dict(state)
        self.history = copy.deepcopy(state["history"])
        self._generator.set_state(state["generator"])
        self._bytes, self._kept = int(state["bytes"]), int(state["kept"])
