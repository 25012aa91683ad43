"""Runs one cell: the only part of the study that trains, imported only where a cell runs."""

import math
import random
import resource
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.methods import METHODS, Budget
from cl_ext.methods.context import Built, Context
from cl_ext.models import NetworkSpec
from cl_ext.nn.capacity import capacity
from cl_ext.streams import StreamSpec, build_stream
from cl_ext.streams.datasets import content_checksum
from cl_ext.study.cellspec import SCHEMA, CellSpec
from cl_ext.study.follower import Follower
from cl_ext.study.recorder import DivergedError, Evaluator, Recorder

import numpy as np
import torch


@dataclass(frozen=True)
class CellOptions:
    """What a cell needs to know of the machine; none of it changes its result.

    Attributes:
        data_root: Folder of the data sets.
        files: A user's own data files by content checksum.
        threads: Threads of PyTorch.
        tracking: The tracker in which the cell is followed, as `Tracking.options` gives it; None for none.
    """

    data_root: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    tracking: Mapping[str, Any] | None = None


def run_cell(cell: CellSpec, options: CellOptions | None = None) -> dict[str, Any]:
    """Runs a cell and returns its record; a failure is a record too.

    Args:
        cell: What to run.
        options: Where the data are, how many threads.

    Returns:
        The record: JSON values only, None where a number is undefined.
    """
    options = options or CellOptions()
    torch.set_num_threads(options.threads)
    wall, cpu = time.perf_counter(), time.process_time()
    record: dict[str, Any] = {"schema": SCHEMA, "run_id": cell.run_id, "status": "done", "error": None}
    follower = Follower(options.tracking, cell)
    try:
        record |= _train(cell, options, follower)
    except Exception as error:
        status = "diverged" if isinstance(error, DivergedError) else "failed"
        text = "".join(traceback.format_exception(error))
        print(text, file=sys.stderr)
        message = str(error).strip() or type(error).__name__
        record |= {
            "status": status,
            "error": {"type": type(error).__name__, "message": message, "traceback": text},
        }
    record.setdefault("costs", {})
    record["costs"] |= {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_memory_bytes": _peak_memory(cell.device),
    }
    record = dict(_json_values(record))
    follower.end(record)
    return record


def make_stream(cell: CellSpec, options: CellOptions) -> Any:
    """The benchmark that a cell runs on.

    Raises:
        ValueError: A user's data file is missing or is not the one that the study was planned with.
    """
    fields = dict(cell.stream)
    names = [fields["dataset"]] if isinstance(fields["dataset"], str) else list(fields["dataset"])
    for index, name in enumerate(names):
        if name.startswith("sha256:"):
            path = options.files.get(name)
            if path is None or not Path(path).is_file():
                raise ValueError(f"the data file with checksum {name} is not here; it was looked for at {path}")
            if content_checksum(Path(path)) != name:
                raise ValueError(f"{path} has changed since the study was planned; plan it again")
            names[index] = path
    fields["dataset"] = names[0] if isinstance(cell.stream["dataset"], str) else tuple(names)
    if fields.get("angles") is not None:
        fields["angles"] = tuple(fields["angles"])
    return build_stream(StreamSpec(**fields, scenario=cell.scenario, seed=cell.seed), data_root=options.data_root)


def build_method(cell: CellSpec, benchmark: Any, recorder: Recorder) -> tuple[Built, int]:
    """Equips the strategy of a cell's method; returns it, and the bytes of the study's network."""
    method = METHODS[cell.method]
    module, _, function = method.build.partition(":")
    context = Context(
        benchmark,
        cell.scenario,
        NetworkSpec.from_dict(cell.network),
        Budget.from_dict(cell.budget),
        cell.seed,
        cell.device,
        observers=recorder.plugins(),
    )
    built: Built = getattr(import_module(module), function)(context, **cell.hyperparameters)
    return built, _bytes([context.model()])


def _train(cell: CellSpec, options: CellOptions, follower: Follower) -> dict[str, Any]:
    benchmark = make_stream(cell, options)
    experiences = len(benchmark.train_stream)
    recorder = Recorder(cell.evaluation, follower if follower.active else None)
    _seed(cell.seed)
    built, network_bytes = build_method(cell, benchmark, recorder)
    # what a method draws while it is built must not move the draws of its training: common random numbers
    _seed(cell.seed)
    evaluator = Evaluator(benchmark, METHODS[cell.method].needs_task_label, torch.device(cell.device))
    recorder.watch(evaluator, built)
    follower.watch(built.strategy)

    undefined = [math.nan] * experiences
    rows = [evaluator(built)]
    follower.accuracies(0, 0, *rows[0])
    sizes = [_size(built, network_bytes, 0, 0.0)]
    wall, cpu = time.perf_counter(), time.process_time()
    evaluation_wall, evaluation_cpu = -follower.spent[0], -follower.spent[1]  # tracking is no part of training either
    # third parties' strategies need not know it where it is not asked for
    dropping = {"drop_last": True} if cell.budget.get("drop_last") else {}
    for index, experience in enumerate(benchmark.train_stream):
        last = index == experiences - 1
        recorder.begin_experience(index + 1, count_flops=last)
        built.strategy.train(
            experience, eval_streams=[], reset_optimizer_state=cell.budget["reset_optimizer"], num_workers=0, **dropping
        )
        at = time.perf_counter(), time.process_time()
        trained = at[1] - cpu - evaluation_cpu - recorder.evaluation_seconds[1] - follower.spent[1]
        rows.append(evaluator(built) if built.rows == "all" or last else (undefined, undefined))
        sizes.append(_size(built, network_bytes, index + 1, trained))
        evaluation_wall += time.perf_counter() - at[0]
        evaluation_cpu += time.process_time() - at[1]
        follower.accuracies(recorder.steps, index + 1, *rows[-1])
        known = [accuracy for accuracy in rows[-1][0][: index + 1] if not math.isnan(accuracy)]
        mean = sum(known) / len(known) if known else math.nan
        print(f"experience {index + 1} of {experiences}: {recorder.steps} steps, task-aware {mean:.4f}", flush=True)
    train_seconds = time.perf_counter() - wall - evaluation_wall - recorder.evaluation_seconds[0] - follower.spent[0]
    train_cpu = time.process_time() - cpu - evaluation_cpu - recorder.evaluation_seconds[1] - follower.spent[1]
    return {
        "data": benchmark.data,
        "matrix": {"task_aware": [row[0] for row in rows], "task_agnostic": [row[1] for row in rows]},
        "class_counts": evaluator.class_counts,
        "test_sizes": evaluator.sizes,
        "sizes": sizes,
        "structure": built.structure(),
        "curves": {"loss": recorder.losses, "accuracy": recorder.accuracies},
        "costs": {
            "train_seconds": train_seconds,
            "train_cpu_seconds": train_cpu,
            "seconds_per_step": train_cpu / recorder.steps if recorder.steps else None,
            "steps": recorder.steps,
            "flops_per_step": recorder.flops_per_step,
            "parameters": sizes[-1]["parameters"],
            "parameters_nonzero": sizes[-1]["nonzero"],
            "extra_bytes": sizes[-1]["extra_bytes"],
        },
    }


def _size(built: Built, network_bytes: int, experience: int, trained: float) -> dict[str, Any]:
    """What a method holds after an experience, 0 before the first, and the CPU seconds of training until then.

    Extra bytes are what the method keeps beside its networks, and what these have more than the study's network.
    """
    networks = built.networks()
    extra = int(built.extra_bytes()) + max(0, _bytes(networks) - network_bytes)
    return {
        "experience": experience, **capacity(networks), "extra_bytes": extra, "train_cpu_seconds": trained,
    }  # fmt: skip


def _bytes(networks: Iterable[torch.nn.Module]) -> int:
    return sum(parameter.nbytes for network in networks for parameter in network.parameters())


def _seed(seed: int) -> None:
    """Seeds the global generators, for the libraries that draw from them."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _peak_memory(device: str) -> int:
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _json_values(value: Any) -> Any:
    """NaN and infinities become null: JSON has no other word for undefined."""
    if isinstance(value, Mapping):
        return {key: _json_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_values(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
