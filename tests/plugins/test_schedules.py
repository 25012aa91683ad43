"""Learning-rate schedules beside methods with phases: what rate each step of each phase has."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cl_ext.models.expansion import expandable
from cl_ext.nn.schedules import ScheduleState
from cl_ext.plugins import CPGPlugin, PackNetPlugin

import pytest
import torch
from avalanche.training.plugins import LRSchedulerPlugin
from torch.optim import lr_scheduler as rates

from tests.plugins import common
from tests.plugins.scheduled import EPOCHS, FACTOR, LR, METHODS, RESUMED, SCHEDULES, STEPS, own_rates, ran

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
each_method = pytest.mark.parametrize("method", [name for name in METHODS if name != "naive"])
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES)


def check_phases(method: str, number: int, begin: float, own: list[float], parts: list[list[float]]) -> None:
    """What the method does beside the strategy's own epochs, in experience `number` that began at a rate."""
    before, after = parts[0], parts[2]
    steps = EPOCHS * STEPS
    if method == "packnet":
        assert (before, after) == ([], [begin * FACTOR] * 2 * STEPS)
    elif method == "cpg":
        grown = 2 * steps if number == 0 else 0
        assert before == []
        assert after[:grown] == own * (grown // steps)  # the first stage again, twice
        assert len(after) > grown
        assert set(after[grown:]) == {begin * FACTOR}
    elif method == "den":
        share = 0 if number == 0 else 1
        assert before == [begin] * (share * steps // 2)
        # expansion, drift and retraining
        assert after == [begin] * share * (steps + 2 * round(0.4 * steps))
    else:
        assert (before, after) == ([], [])


@each_schedule
@each_method
def test_the_schedule_is_for_the_own_epochs_and_phases_have_one_rate(method: str, schedule: str) -> None:
    _, log = ran(method, schedule)
    for number, parts in enumerate(log.steps):
        factor = FACTOR if method == "net2net" and number else 1.0
        assert parts[1] == pytest.approx([factor * rate for rate in own_rates(schedule)])
        check_phases(method, number, LR, parts[1], parts)


@pytest.mark.parametrize("options", [
    {}, {"reset_lr": False}, {"reset_lr": False, "reset_scheduler": False}, {"first_exp_only": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("scheduled_first", [False, True])
@pytest.mark.parametrize("schedule", ["cosine", "lambda", "iterations", "plateau"])
@each_method
def test_own_rates_and_the_state_afterwards_are_those_without_phases(
    method: str, schedule: str, scheduled_first: bool, options: dict[str, Any]
) -> None:
    """Also where a schedule goes on over experiences; bit for bit."""
    _, plain = ran("naive", schedule, scheduled_first=scheduled_first, **options)
    _, log = ran(method, schedule, scheduled_first=scheduled_first, **options)
    assert log.ends == plain.ends
    for number, (parts, naive) in enumerate(zip(log.steps, plain.steps, strict=True)):
        factor = FACTOR if method == "net2net" and number else 1.0
        assert parts[1] == [rate * factor for rate in naive[1]]
        check_phases(method, number, naive[1][0], parts[1], parts)


@each_method
def test_a_schedule_that_keeps_the_rate_changes_nothing(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES, "flat", (lambda o: rates.LambdaLR(o, lambda epoch: 1.0), {}, lambda i: 1.0))
    scheduled, _ = ran(method, "flat")
    model = METHODS[method][0]((torch.manual_seed(0), common.mlp())[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    plain = common.strategy(model, [METHODS[method][1]()], optimizer=optimizer, train_epochs=EPOCHS)
    common.train(plain, common.benchmark("nc-tasks").train_stream[:3])
    assert common.same(common.weights(scheduled.model), common.weights(plain.model))


def test_momentum_that_a_schedule_cycles_is_the_begins_in_a_phase() -> None:
    model = expandable(common.mlp())
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    schedule = rates.OneCycleLR(optimizer, max_lr=1.0, total_steps=3 * EPOCHS)
    seen: list[tuple[float, float]] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append((group["lr"], group["momentum"])))
    group = optimizer.param_groups[0]
    plugin = PackNetPlugin(0.5, retrain_epochs=2, retrain_lr_factor=1.0)
    runner = common.strategy(model, [plugin, LRSchedulerPlugin(schedule)], optimizer=optimizer, train_epochs=EPOCHS)
    common.train(runner, common.benchmark("nc-tasks").train_stream[:1])
    assert seen[0] != seen[STEPS]
    assert seen[EPOCHS * STEPS :] == [seen[0]] * 2 * STEPS


# ---- the network that sets CPG's goal --------------------------------------------------------------------------------


class Spied(torch.optim.SGD):
    """Notes its rates, by optimizer."""

    seen: dict[int, list[float]]

    def step(self, closure: Any = None) -> Any:
        Spied.seen.setdefault(id(self), []).append(self.param_groups[0]["lr"])
        return super().step(closure)


@pytest.mark.filterwarnings("error:Seems like", "error:Detected call")
@each_schedule
def test_the_single_task_network_has_the_strategys_schedule(schedule: str) -> None:
    make, stepped, _ = SCHEDULES[schedule]
    Spied.seen = {}
    model = expandable(common.mlp())
    optimizer = Spied(model.parameters(), lr=LR)
    scheduler = make(optimizer)
    kept: list[Any] = []  # so that no id is used twice

    class _Goal(CPGPlugin):
        def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            before = copy.deepcopy(scheduler.state_dict())
            super().before_training_exp(strategy)
            assert scheduler.state_dict() == before
            assert optimizer.param_groups[0]["lr"] == LR
            kept.append(next(rates for key, rates in Spied.seen.items() if key != id(optimizer)))
            Spied.seen = {key: [] for key in Spied.seen if key == id(optimizer)}

    plugins = [_Goal(max_width=1.0, ladder=(), hold_out=0.0), LRSchedulerPlugin(scheduler, **stepped)]
    every = 1 if schedule == "validation" else -1
    runner = common.strategy(model, plugins, optimizer=optimizer, train_epochs=EPOCHS, eval_every=every)
    common.train(runner, common.benchmark("nc-tasks").train_stream[:2])
    expected = [LR] * EPOCHS * STEPS if schedule == "validation" else own_rates(schedule)
    assert kept == [pytest.approx(expected)] * 2


# ---- going on in a fresh process -------------------------------------------------------------------------------------


def test_it_goes_on_bit_equal_in_a_fresh_process(tmp_path: Path) -> None:
    whole = {}
    for method, schedule, reset in RESUMED:
        name = f"{method}-{schedule}-{reset}.pt"
        runner, log = ran(method, schedule, experiences=2, reset_lr=reset, reset_scheduler=reset)
        state = {"model": runner.model.state_dict(), "plugin": runner.plugins[1].state_dict(),
                 "optimizer": runner.optimizer.state_dict(), "schedule": log.schedule.state_dict()}  # fmt: skip
        if schedule == "lambda":
            state["schedule"] = {key: value for key, value in state["schedule"].items() if key != "lr_lambdas"}
            state["schedule"]["lr_lambdas"] = [None]
        torch.save(state, tmp_path / name)
        common.train(runner, common.benchmark("nc-tasks").train_stream, first=2)
        whole[name] = common.weights(runner.model)
    command = [sys.executable, "-m", "tests.plugins.scheduled", str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], capture_output=True, timeout=600)
    for name, weights in whole.items():
        assert common.same(weights, torch.load(tmp_path / f"resumed-{name}")), name


# ---- negative control and refusal ------------------------------------------------------------------------------------


@contextmanager
def _multiplied(self: ScheduleState, strategy: Any, lr_factor: float = 1.0) -> Iterator[None]:
    """A phase as one would write it first: the present rate, multiplied, and put back."""
    group = strategy.optimizer.param_groups[0]
    before = group["lr"]
    group["lr"] = before * lr_factor
    yield
    group["lr"] = before


@contextmanager
def _nothing(self: ScheduleState, strategy: Any) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("method", "schedule", "experience", "part", "wrong"),
    [
        ("cpg", "step", 0, 2, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6]),  # growth that trains nothing
        ("den", "milestones", 1, 1, [0.1, 0.01, 0.01, 0.01]),  # the head's two epochs took a milestone
        ("packnet", "lambda", 0, 2, [0.02 * FACTOR, 0.1 / 6]),  # the factor is lost after an epoch
    ],
)
def test_the_log_sees_phases_that_step_the_schedule(
    method: str, schedule: str, experience: int, part: int, wrong: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScheduleState, "phase", _multiplied)
    monkeypatch.setattr(ScheduleState, "again", _nothing)
    _, log = ran(method, schedule, experiences=2)
    assert log.steps[experience][part][::STEPS][: len(wrong)] == pytest.approx(wrong)
    with pytest.raises(AssertionError):
        test_the_schedule_is_for_the_own_epochs_and_phases_have_one_rate(method, schedule)


@pytest.mark.parametrize(("method", "owner"), [("cpg", "CPGPlugin"), ("den", "DENPlugin")])
def test_a_schedule_of_the_first_epoch_alone_is_refused(method: str, owner: str) -> None:
    with pytest.raises(ValueError, match=f"{owner} has epochs of its own, which LRSchedulerPlugin.first_epoch_only"):
        ran(method, "step", experiences=1, first_epoch_only=True)
