"""From what was typed on the command line to runs: finding the files, loading them, naming them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pandas import DataFrame

from llm_reports.errors import InputError, unreadable
from llm_reports.input.manifest import disagreements
from llm_reports.input.open_file import STDIN, beside, is_json, plain_name
from llm_reports.input.related_files import related_files_of
from llm_reports.input.rows import empty_requests, empty_stages, first_line_is_rows_header, read_requests
from llm_reports.input.shards import elsewhere, with_elsewhere, with_shards
from llm_reports.llmperf.reader import RESPONSES_SUFFIX, read_responses, read_summary, stem_of
from llm_reports.run import AT, Run, named_apart
from llm_users.run_files import REPORT_FOLDER, REQUESTS_CSV, SHARD_CSV, path_of


def load(prefix: str | Path) -> Run:
    """The one run behind a PREFIX, a rows file, an LLMPerf file, or a folder that holds only one of these."""
    files = find(prefix)
    if len(files) > 1:
        raise InputError(f"{prefix}: holds {len(files)} runs. Name one of them, or load them all with load_all.")
    return _models_told_apart(load_file(files[0]))


def load_all(inputs: Iterable[str | Path], *, framework: str | None = None, model: str | None = None) -> list[Run]:
    """Every run behind the inputs, in their order; what is named twice is loaded once.

    Shards are added to the run that they are of, each row once; those of a run that is not among the inputs are a run
    by themselves. ``framework`` and ``model`` replace what the rows say.
    """
    files: dict[Path, Path] = {}
    twice: set[Path] = set()
    for each in inputs:
        for path in find(each):
            if path.resolve() in files:
                twice.add(path.resolve())
            files.setdefault(path.resolve(), path)
    shards = [path for path in files.values() if plain_name(path).endswith(SHARD_CSV)]
    runs = [load_file(path) for path in files.values() if path not in shards]
    found = [_models_told_apart(run) for run in (with_shards(runs, shards) if shards else runs)]
    if len(found) > 1 or twice:
        found = named_apart(list(_saying_what_is_twice(found, twice)))
    return [_renamed(run, framework, model) for run in found]


def _models_told_apart(run: Run) -> Run:
    """The run with each model that was asked at several endpoints named by these too: they are not one thing."""
    places = run.requests[["framework", "model", "endpoint"]].drop_duplicates()
    places = places[places["endpoint"] != ""]
    twice = places.duplicated(["framework", "model"], keep=False)
    if not twice.any():
        return run
    names = {
        (framework, model, url): f"{model}{AT}{url}" for framework, model, url in places[twice].itertuples(index=False)
    }
    rows = zip(run.requests["framework"], run.requests["model"], run.requests["endpoint"], strict=True)
    model = [names.get(row, row[1]) for row in rows]
    return dataclasses.replace(run, requests=run.requests.assign(model=model))


def _renamed(run: Run, framework: str | None, model: str | None) -> Run:
    given = {column: name for column, name in (("framework", framework), ("model", model)) if name is not None}
    return dataclasses.replace(run, requests=run.requests.assign(**given)) if given else run


def _saying_what_is_twice(runs: Sequence[Run], twice: set[Path]) -> Iterator[Run]:
    """The runs, with a warning for one that was named twice and one whose rows an earlier one has already."""
    ids: list[tuple[Run, set[str]]] = []
    for run in runs:
        said = [f"{run.source}: named more than once; it counts once."] if run.source.resolve() in twice else []
        run_ids = {run_id for run_id in run.requests["run_id"].unique() if run_id}
        for earlier, its_ids in ids:
            if run_ids & its_ids and (repeated := _repeated(run, earlier)):
                said.append(
                    f"{run.source}: {repeated} of its {len(run.requests)} rows are also in {earlier.source}; a run and "
                    "its copy are not two measurements."
                )
        ids.append((run, run_ids))
        yield dataclasses.replace(run, warnings=(*run.warnings, *said)) if said else run


def _repeated(run: Run, earlier: Run) -> int:
    """How many requests of a run an earlier one has too, by the ids of run and request, and by their start."""
    columns = ["run_id", "request_id", "started_at"]
    known = earlier.requests[columns]
    rows = run.requests[columns]
    return len(rows[rows["request_id"] != ""].merge(known.drop_duplicates(), on=columns))


def find(given: str | Path) -> list[Path]:
    """The rows files and LLMPerf files that an input stands for; ``-`` is standard input."""
    path = Path(given)
    if str(given) == str(STDIN):
        return [STDIN]
    requests = beside(path_of(path, REQUESTS_CSV)) if path.name else path
    if path.name and requests.is_file():
        return [requests]
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return [path]
    raise InputError(
        f"{path}: no such input. There is no file or folder of this name, nor {requests}.{_runs_beside(path)} "
        "Give a run's PREFIX (as in --csv PREFIX), a rows file, an LLMPerf *_individual_responses.json, a folder, or - "
        "for standard input."
    )


def load_file(path: Path) -> Run:
    """One run from its rows file (with what lies beside it) or from an LLMPerf file."""
    if is_json(path):
        summary, warnings = read_summary(path)
        requests, more = read_responses(path, summary)
        name, warnings = _name(path, stem_of(path)), (*warnings, *more)
        return Run(name, path, requests, empty_stages(), manifest=summary, foreign=True, warnings=warnings)
    if not plain_name(path).endswith(REQUESTS_CSV):
        requests, warnings = read_requests(path)
        name = _name(path, plain_name(path).rpartition(".")[0] or plain_name(path))
        return Run(name, path, requests, empty_stages(), warnings=warnings)
    return _load_run(path, path.with_name(plain_name(path).removesuffix(REQUESTS_CSV)))


def _name(path: Path, name: str) -> str:
    return "standard input" if path == STDIN else name


def _load_run(path: Path, prefix: Path) -> Run:
    more = related_files_of(prefix)
    manifest = more.manifest
    try:
        requests, found = read_requests(path)
    except InputError as error:
        if not elsewhere(manifest):
            raise
        requests, found = empty_requests(), (str(error),)
    if elsewhere(manifest):
        requests, said = _of_run(path, requests, str(manifest.get("run_id") or ""))
        found = (*found, *said)
    said = tuple(f"{path}: {text}" for text in disagreements(manifest, requests, more.stages))
    run = Run(
        name=prefix.name,
        source=path,
        requests=_named_by_manifest(requests, manifest),
        stages=more.stages,
        gaps=more.gaps,
        manifest=manifest,
        report_dir=path_of(prefix, REPORT_FOLDER),
        warnings=(*found, *more.warnings, *said),
    )
    return with_elsewhere(run) if elsewhere(manifest) else run


def _of_run(path: Path, requests: DataFrame, run_id: str) -> tuple[DataFrame, tuple[str, ...]]:
    """The rows of a run whose rows file may have been replaced by another while the run wrote it."""
    own = requests["run_id"].isin(("", run_id))
    if own.all():
        return requests, ()
    text = f"{path}: {int((~own).sum())} rows are of another run than the manifest and are left out."
    return requests[own].reset_index(drop=True), (text,)


def _named_by_manifest(requests: DataFrame, manifest: Mapping[str, object]) -> DataFrame:
    """Rows that do not name their framework or model get the manifest's."""
    for column in ("framework", "model"):
        name = manifest.get(column)
        if isinstance(name, str) and name:
            requests = requests.assign(**{column: requests[column].where(requests[column] != "", name)})
    return requests


def _in_folder(folder: Path) -> list[Path]:
    """The runs and LLMPerf files of a folder or, when it holds none itself, of its subfolders."""
    try:
        found = _inputs_among(folder.iterdir())
        for subfolder in sorted(folder.iterdir(), key=_natural) if not found else ():
            if subfolder.is_dir():
                found.extend(_inputs_among(subfolder.iterdir()))
    except OSError as error:
        raise unreadable(folder, error) from error
    if not found:
        raise InputError(
            f"{folder}: the folder holds neither a run (*{REQUESTS_CSV}) nor an LLMPerf file (*{RESPONSES_SUFFIX}). "
            "Name the folder that --csv wrote to."
        )
    return found


def _inputs_among(paths: Iterable[Path]) -> list[Path]:
    found = {path.name: path for path in paths if path.is_file() and _is_input(path)}
    # A file that lies there compressed too is one input.
    once = (path for path in found.values() if path.name == plain_name(path) or plain_name(path) not in found)
    return sorted(once, key=_natural)


def _is_input(path: Path) -> bool:
    if plain_name(path).endswith((REQUESTS_CSV, RESPONSES_SUFFIX)):
        return True
    return plain_name(path).endswith(".csv") and first_line_is_rows_header(path)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """A sort key by which run2 comes before run10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", path.name) if part]


def _runs_beside(path: Path) -> str:
    try:
        beside = sorted(path.parent.glob(f"*{REQUESTS_CSV}"), key=_natural)
    except OSError:
        return ""
    names = [str(other.with_name(other.name.removesuffix(REQUESTS_CSV))) for other in beside[:3]]
    return f" Runs in that folder: {', '.join(names)}{', ...' if len(beside) > 3 else ''}." if names else ""
