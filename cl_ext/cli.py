"""The command line: run, plan, status, report, tune, methods, streams. torch is imported where it is used."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cl_ext._commands import Commands

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from cl_ext.study import Study


app = typer.Typer(
    name="cl-ext",
    cls=Commands,
    help="Continual-learning methods as Avalanche plugins, compared on shared streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# a log or a pipe has no width of its own; the leaderboard needs more than the 80 columns that rich assumes
console = Console(width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True)

StudyFile = Annotated[Path, typer.Argument(help="A study file, for example benchmarks/digits.yaml.")]
Methods = Annotated[str | None, typer.Option(help="Only these methods, separated by commas.")]
Seeds = Annotated[str | None, typer.Option(help="Other seeds than the study's: 0-4 or 0,2,5.")]
Dataset = Annotated[str | None, typer.Option(help="Another data set than the study's: a name or a .npz file.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data sets.", envvar="CL_EXT_DATA", show_envvar=True)]
Out = Annotated[Path | None, typer.Option(help="The store; by default runs/<study>.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Workers = Annotated[int | None, typer.Option(help="Cells at a time; by default the cores.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")]
TimeLimit = Annotated[float | None, typer.Option(help="Seconds that one cell may run.")]


@contextmanager
def _one_sentence() -> Iterator[None]:
    """A mistake of the user's is one sentence and exit code 2, not a traceback."""
    from cl_ext.study import StudyError

    try:
        yield
    except StudyError as error:
        errors.print(f"cl-ext: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _load(path: Path, methods: str | None, seeds: str | None, dataset: str | None, data_root: Path | None) -> "Study":
    from cl_ext.study import Study, StudyError
    from cl_ext.study.reader import parse_seeds

    if data_root is not None and not data_root.is_dir():
        raise StudyError(f"--data-root is {data_root}, which is no folder")
    study = Study.load(path, data_root)
    if dataset is not None:
        study = study.with_dataset(dataset, data_root)
    return study.with_selection(_names(methods), None if seeds is None else parse_seeds(seeds))


@app.command()
def run(
    study_file: StudyFile,
    out: Out = None,
    workers: Workers = None,
    methods: Methods = None,
    seeds: Seeds = None,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    device: Device = "cpu",
    retry_failed: RetryFailed = False,
    time_limit: TimeLimit = None,
    track: Annotated[str | None, typer.Option(help="Follow cells in tensorboard, mlflow or wandb too.")] = None,
    track_dir: Annotated[Path | None, typer.Option(help="Where it writes; by default tracking in the store.")] = None,
) -> None:
    """Runs what is left of a study, then writes and shows the report.

    Exit code 0: every cell is done; 1: some failed; 2: a mistake in the study or the options; 130: interrupted.
    """
    from cl_ext.study import run as run_study
    from cl_ext.study.progress import progress_for
    from cl_ext.study.tracking import tracking_of

    with _one_sentence():
        study = _load(study_file, methods, seeds, dataset, data_root)
        store = out or Path("runs") / study.name
        summary = run_study(
            study, store, workers=workers, device=device, data_root=data_root, retry_failed=retry_failed,
            time_limit=time_limit, progress=progress_for(console), tracking=tracking_of(track, track_dir),
        )  # fmt: skip
        _report([store], store, figures=True)
    states = ", ".join(f"{count} {state}" for state, count in sorted(summary.states.items()))
    console.print(f"{study.name}: {states}; {summary.ran} ran now, in {summary.seconds:.0f} s", highlight=False)
    if summary.failed:
        errors.print("cl-ext: some cells failed; the leaderboard lists them, --retry-failed runs them again")
        raise typer.Exit(1)


@app.command()
def plan(
    study_file: StudyFile,
    out: Out = None,
    methods: Methods = None,
    seeds: Seeds = None,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    device: Device = "cpu",
) -> None:
    """Shows a study's cells: done, missing, failed, stale. Nothing runs."""
    from cl_ext.methods import METHODS
    from cl_ext.study import Store
    from cl_ext.study import plan as plan_study

    with _one_sentence():
        study = _load(study_file, methods, seeds, dataset, data_root)
        store = Store(out or Path("runs") / study.name)
        planned = plan_study(study, store, device)
        table = Table(title=f"{study.name}: {study.title}", title_justify="left")
        table.add_column("method")
        for scenario in study.scenarios:
            table.add_column(f"{scenario}-incremental")
        for name in study.methods:
            cells = []
            for scenario in study.scenarios:
                states = Counter(p.state for p in planned if (p.cell.method, p.cell.scenario) == (name, scenario))
                words = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
                cells.append(words if scenario in METHODS[name].scenarios else "-")
            table.add_row(name, *cells)
        console.print(table)
        states = Counter(item.state for item in planned)
        console.print(
            f"{len(planned)} cells: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        )


@app.command()
def status(folder: Annotated[Path, typer.Argument(help="A store.")]) -> None:
    """Shows what runs in a store now, what is left, and when it should end."""
    from cl_ext.study import StudyError
    from cl_ext.study.status import status_of

    with _one_sentence():
        if not folder.is_dir():
            raise StudyError(f"{folder} is no folder; a store is the folder that `cl-ext run` wrote")
        for line in status_of(folder):
            console.print(line, highlight=False, soft_wrap=True)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Stores; several are merged.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; by default the first store.")] = None,
    figures: Annotated[bool, typer.Option(help="Whether to draw the figures.")] = True,
    outside: Annotated[Path | None, typer.Option(help="A CSV with results of others, shown marked.")] = None,
) -> None:
    """Writes the leaderboard (html, md, csv, tex, bib, parquet) and figures from the records of stores."""
    from cl_ext.study import StudyError

    with _one_sentence():
        for folder in folders:
            if not (folder / "cells").is_dir():
                raise StudyError(f"{folder} is no store: it has no folder `cells`")
        _report(folders, out or folders[0], figures, outside)


def _report(folders: list[Path], out: Path, figures: bool, outside: Path | None = None) -> None:
    from cl_ext.report.pages import write_report

    written = write_report(folders, out, figures=figures, console=console, outside=outside, workers=os.cpu_count() or 1)
    console.print(f"written: {', '.join(map(str, written))}", highlight=False, soft_wrap=True)


@app.command()
def tune(
    study_file: StudyFile,
    out: Annotated[Path | None, typer.Option(help="The search's store; by default runs/<study>-tune.")] = None,
    write: Annotated[Path | None, typer.Option(help="The tuned study; by default <out>/<study>.yaml.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="end-of-stream (the default), first-experiences, fixed or transfer.")
    ] = None,
    methods: Methods = None,
    scenarios: Annotated[str | None, typer.Option(help="Only these scenarios of the study's.")] = None,
    seeds: Annotated[str, typer.Option(help="Tuning seeds: none of the study's.")] = "1000",
    validation: Annotated[float, typer.Option(help="Fraction of the training data to measure on.")] = 0.2,
    experiences: Annotated[int | None, typer.Option(help="Only the stream's first so many.")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="transfer: the tuned study to take values of.")] = None,
    hyperparameters: Annotated[str | None, typer.Option(help="What to tune; by default each strength.")] = None,
    grid: Annotated[list[str] | None, typer.Option(help="Values to try: si_lambda=0.1,1; may be repeated.")] = None,
    sampler: Annotated[str, typer.Option(help="grid, or Optuna's tpe or random.")] = "grid",
    trials: Annotated[int | None, typer.Option(help="Settings that a sampler tries; by default 20.")] = None,
    workers: Workers = None,
    data_root: DataRoot = None,
    device: Device = "cpu",
    retry_failed: RetryFailed = False,
    time_limit: TimeLimit = None,
) -> None:
    """Chooses hyper-parameters on held-out training data and seeds of its own; writes a study file with them.

    Exit code 0: every method has a value; 1: no setting of some method finished; 2: a mistake; 130: interrupted.
    """
    from cl_ext.report.tables.tuning import tuning_lines, tuning_table
    from cl_ext.study.choice import choose_values
    from cl_ext.study.progress import progress_for
    from cl_ext.study.protocol import Protocol, parse_grids
    from cl_ext.study.reader import parse_seeds

    with _one_sentence():
        study = _load(study_file, None, None, None, data_root)
        store = out or Path("runs") / f"{study.name}-tune"
        search = Protocol(
            methods=_names(methods), scenarios=_names(scenarios), seeds=parse_seeds(seeds), validation=validation,
            experiences=experiences, hyperparameters=_names(hyperparameters), grids=parse_grids(grid or []),
            sampler=sampler, trials=trials,
        )  # fmt: skip
        chosen = choose_values(
            study, search, store, write or store / f"{study.name}.yaml", protocol=protocol, source=source,
            workers=workers, device=device, data_root=data_root, retry_failed=retry_failed, time_limit=time_limit,
            progress=progress_for(console),
        )  # fmt: skip
        if chosen.found:
            console.print(tuning_table(study, chosen.found))
        for line in (*chosen.lines, *tuning_lines(chosen.found)):
            console.print(line, highlight=False, soft_wrap=True)
        console.print(f"written: {', '.join(map(str, chosen.written))}", highlight=False, soft_wrap=True)
    if any(each.chosen is None for each in chosen.found):
        raise typer.Exit(1)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="One method, for all that is known of it.")] = None,
) -> None:
    """Lists what can be compared, with papers, scenarios and defaults."""
    from cl_ext.methods import METHODS, UnknownMethodError

    if name is None:
        table = Table(box=None, pad_edge=False)
        for title in ("method", "source", "scenarios"):
            table.add_column(title, no_wrap=True)
        table.add_column("defaults", overflow="fold")
        table.add_column("paper", overflow="fold")
        for each in METHODS:
            row = METHODS[each]
            values = ", ".join(f"{key}={parameter.default!r}" for key, parameter in row.hyperparameters.items())
            table.add_row(each, row.origin, " ".join(row.scenarios), values, row.paper)
        console.print(table)
        console.print("`cl-ext methods NAME` says all that is known of one: ranges, mends, faults", highlight=False)
        return
    try:
        row = METHODS[name]
    except UnknownMethodError as error:
        errors.print(f"cl-ext: {error}", markup=False, highlight=False)
        raise typer.Exit(2) from None
    console.print(f"{row.name} ({row.origin}, revision {row.revision}): {row.paper}", highlight=False)
    console.print(f"scenarios: {', '.join(row.scenarios)}; stores: {row.stores}", highlight=False)
    for key, parameter in row.hyperparameters.items():
        console.print(f"  {key} = {parameter.default!r}: {parameter.allowed}. {parameter.note}", highlight=False)
    for title, lines in (("mended", row.mends), ("known fault", row.faults)):
        for line in lines:
            console.print(f"  {title}: {line}", highlight=False)


@app.command()
def streams() -> None:
    """Lists the data sets and the kinds of stream."""
    from cl_ext.streams.catalogue import DATASETS
    from cl_ext.streams.spec import STREAMS

    table = Table("data set", "images", "classes", "train", "test", "source", "how it is got")
    for info in DATASETS.values():
        shape = "x".join(str(side) for side in info.shape)
        table.add_row(info.name, shape, str(info.classes), f"{info.train:,}", f"{info.test:,}", info.source, info.how)
    console.print(table)
    console.print(f"kinds of stream: {', '.join(STREAMS)}; or any .npz with x_train, y_train, x_test, y_test")


def main() -> None:
    """The console script `cl-ext`."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(1)
