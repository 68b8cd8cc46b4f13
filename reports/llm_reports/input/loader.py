"""Loading of runs from command-line inputs: this module finds the files, loads them, and names the runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llm_reports.errors import InputError
from llm_reports.input.open_file import STDIN, beside, is_json, plain_name, unreadable
from llm_reports.input.related_files import disagreements, related_files_of, server_metrics_of
from llm_reports.input.rows import empty_stages, first_line_is_rows_header, read_requests, typed_frame
from llm_reports.input.shards import elsewhere, with_elsewhere, with_shards
from llm_reports.llmperf.reader import RESPONSES_SUFFIX, read_responses, read_summary, stem_of
from llm_reports.run import AT, Run, named_apart
from llm_users.quantile import DurationHistogram
from llm_users.record import COL, REQUEST_COLUMNS
from llm_users.run_files import REPORT_FOLDER, REQUESTS_CSV, SHARD_CSV, path_of


def load(prefix: str | Path) -> Run:
    """Load the run of a PREFIX, a rows file, an LLMPerf file, or a folder that contains exactly one of these.

    Raises ``InputError`` when the input cannot be read or contains several runs.
    """
    name, unnamed = split_name(prefix)
    files = find(unnamed)
    if len(files) > 1:
        raise InputError(
            f"{prefix}: contains {len(files)} runs. Specify one of them, or load all of them with load_all."
        )
    return _with_distinct_models(_named(load_file(files[0]), name))


def load_all(inputs: Iterable[str | Path], *, framework: str | None = None, model: str | None = None) -> list[Run]:
    """Load all runs of the inputs, in their order; an input that occurs twice is loaded once.

    The rows of shards are added to the run that they belong to, each row once. Shards of a run that is not among the
    inputs become a separate run. ``NAME=INPUT`` names the framework, and ``NAME@5=FILE`` also the concurrency
    of an LLMPerf file that does not state it. ``framework`` and ``model`` replace the names in the rows.
    """
    files: dict[Path, Path] = {}
    names_given: dict[Path, InputName] = {}
    repeated: set[Path] = set()
    for given in inputs:
        name, unnamed = split_name(given)
        for path in find(unnamed):
            if name is not None:
                names_given[path.resolve()] = name
            if path.resolve() in files:
                repeated.add(path.resolve())
            files.setdefault(path.resolve(), path)
    shards = [path for path in files.values() if plain_name(path).endswith(SHARD_CSV)]
    runs = [_named(load_file(path), names_given.get(path.resolve())) for path in files.values() if path not in shards]
    loaded = [_with_distinct_models(run) for run in (with_shards(runs, shards) if shards else runs)]
    if len(loaded) > 1 or repeated:
        loaded = named_apart(list(_with_duplicate_warnings(loaded, repeated)))
    names = {column: name for column, name in ((COL.framework, framework), (COL.model, model)) if name is not None}
    if model is not None:
        loaded = [_with_pooled_gaps(run, set(run.requests[COL.model])) for run in loaded]
    return [replace(run, requests=run.requests.assign(**names)) if names else run for run in loaded]


@dataclass(frozen=True)
class InputName:
    """What precedes ``=`` in an input: the framework to show, and the users of a file that does not state them."""

    framework: str
    users: int | None


def split_name(given: str | Path) -> tuple[InputName | None, str | Path]:
    """Split ``NAME=INPUT`` or ``NAME@CONCURRENCY=INPUT``; an input that exists as it is has no name.

    Raises ``InputError`` when the concurrency is not a positive whole number.
    """
    matching = re.fullmatch(r"(?P<name>[^/=]+)=(?P<input>.+)", str(given), re.DOTALL)
    if matching is None or Path(given).exists() or beside(path_of(Path(given), REQUESTS_CSV)).exists():
        return None, given
    name, at, users = matching["name"].rpartition("@")
    if not at:
        return InputName(matching["name"], None), matching["input"]
    if not re.fullmatch(r"[1-9][0-9]{0,6}", users):
        raise InputError(f"{given}: {users!r} is not a concurrency; write NAME@5=FILE, with a whole number above 0")
    return InputName(name, int(users)), matching["input"]


def _named(run: Run, name: InputName | None) -> Run:
    """Return the run with the given framework, and with the given users if its file does not state them.

    Raises ``InputError`` when the file states a load.
    """
    if name is None:
        return run
    requests = run.requests.assign(**{COL.framework: name.framework}) if name.framework else run.requests
    if name.users is not None:
        if requests[[COL.concurrency, COL.rate_per_s]].notna().to_numpy(bool).any():
            raise InputError(f"{run.source}: the file states its load, so omit @{name.users} before the =")
        requests = requests.assign(**{COL.concurrency: requests[COL.concurrency].fillna(name.users)})
    return replace(run, requests=requests)


def _with_distinct_models(run: Run) -> Run:
    """Return the run with the endpoint added to the name of each model that has requests at several endpoints."""
    endpoints = run.requests[[COL.framework, COL.model, COL.endpoint]].drop_duplicates()
    endpoints = endpoints[endpoints[COL.endpoint] != ""]
    ambiguous = endpoints.duplicated([COL.framework, COL.model], keep=False)
    if not ambiguous.any():
        return run
    names = {
        (framework, model, url): f"{model}{AT}{url}"
        for framework, model, url in endpoints[ambiguous].itertuples(index=False)
    }
    rows = zip(run.requests[COL.framework], run.requests[COL.model], run.requests[COL.endpoint], strict=True)
    model = [names.get(row, row[1]) for row in rows]
    run = _with_pooled_gaps(run, {name for _, name, _ in names})
    return replace(run, requests=run.requests.assign(model=model))


def _with_pooled_gaps(run: Run, models: set[str]) -> Run:
    """Return the run with one histogram of chunk gaps per stage for these models, which get other names."""
    gaps: dict[int, dict[str, DurationHistogram]] = {}
    for stage, histograms in run.gaps.items():
        gaps[stage] = {}
        for model, histogram in histograms.items():
            gaps[stage].setdefault("" if model in models else model, DurationHistogram()).merge(histogram.counts)
    return replace(run, gaps=gaps)


def _with_duplicate_warnings(runs: Sequence[Run], repeated_paths: set[Path]) -> Iterator[Run]:
    """Yield the runs with a warning for repeated inputs and for runs that share rows with an earlier run."""
    identity = [COL.run_id, COL.request_id, COL.started_at]
    for index, run in enumerate(runs):
        warnings = []
        if run.source.resolve() in repeated_paths:
            warnings.append(f"{run.source}: the input occurs more than once; it counts once.")
        rows = run.requests[identity]
        rows = rows[(rows[COL.run_id] != "") & (rows[COL.request_id] != "")]
        for earlier in runs[:index]:
            candidates = rows[rows[COL.run_id].isin(earlier.requests[COL.run_id].unique())]
            if not len(candidates):
                continue
            if shared_rows := len(candidates.merge(earlier.requests[identity].drop_duplicates(), on=identity)):
                warnings.append(
                    f"{run.source}: {shared_rows} of its {len(run.requests)} rows are also in {earlier.source}; a copy "
                    "of a run is not a second measurement."
                )
        yield replace(run, warnings=(*run.warnings, *warnings)) if warnings else run


def find(given: str | Path) -> list[Path]:
    """Return the rows files and LLMPerf files of an input; ``-`` is standard input.

    Raises ``InputError`` when the input does not exist.
    """
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
        f"{path}: the input does not exist. Neither a file or folder with this name nor {requests} "
        f"exists.{_runs_beside(path)} Specify the PREFIX of a run (as in --csv PREFIX), a rows file, an LLMPerf "
        "*_individual_responses.json, a folder, or - for standard input."
    )


def load_file(path: Path) -> Run:
    """Load one run from its rows file and the related files next to it, or from an LLMPerf file."""
    if is_json(path):
        summary, warnings = read_summary(path)
        requests, more = read_responses(path, summary)
        name = "standard input" if path == STDIN else stem_of(path)
        return Run(name, path, requests, empty_stages(), manifest=summary, foreign=True, warnings=(*warnings, *more))
    if not plain_name(path).endswith(REQUESTS_CSV):
        requests, warnings = read_requests(path)
        name = plain_name(path).rpartition(".")[0] or plain_name(path)
        name = "standard input" if path == STDIN else name
        return Run(name, path, requests, empty_stages(), warnings=warnings)
    prefix = path.with_name(plain_name(path).removesuffix(REQUESTS_CSV))
    related = related_files_of(prefix)
    manifest = related.manifest
    try:
        requests, warnings = read_requests(path)
    except InputError as error:
        if not elsewhere(manifest):
            raise
        requests, warnings = typed_frame({}, REQUEST_COLUMNS), (str(error),)
    if elsewhere(manifest):
        # Another run may have replaced the rows file while this run wrote it.
        own = requests[COL.run_id].isin(("", str(manifest.get(COL.run_id) or "")))
        if not own.all():
            text = f"{path}: {int((~own).sum())} rows belong to a different run than the manifest and are ignored."
            requests, warnings = requests[own].reset_index(drop=True), (*warnings, text)
    more_warnings = tuple(f"{path}: {text}" for text in disagreements(manifest, requests, related.stages))
    for column in (COL.framework, COL.model):
        stated = manifest.get(column)
        if isinstance(stated, str) and stated:
            requests = requests.assign(**{column: requests[column].where(requests[column] != "", stated)})
    run_ids = {*requests[COL.run_id].unique(), str(manifest.get(COL.run_id) or "")}
    server_metrics, of_server = server_metrics_of(run_ids, related.server_metrics)
    run = Run(
        name=prefix.name,
        source=path,
        requests=requests,
        stages=related.stages,
        gaps=related.gaps,
        manifest=manifest,
        report_dir=path_of(prefix, REPORT_FOLDER),
        warnings=(*warnings, *related.warnings, *more_warnings, *(f"{path}: {text}" for text in of_server)),
        server_metrics=server_metrics,
    )
    return with_elsewhere(run) if elsewhere(manifest) else run


def _in_folder(folder: Path) -> list[Path]:
    """Return the runs and LLMPerf files of a folder or, if it does not contain any, of its subfolders."""
    try:
        inputs = _inputs_among(folder.iterdir())
        for subfolder in sorted(folder.iterdir(), key=_natural) if not inputs else ():
            if subfolder.is_dir():
                inputs.extend(_inputs_among(subfolder.iterdir()))
    except OSError as error:
        raise unreadable(folder, error) from error
    if not inputs:
        raise InputError(
            f"{folder}: the folder contains neither a run (*{REQUESTS_CSV}) nor an LLMPerf file "
            f"(*{RESPONSES_SUFFIX}). Specify the folder that --csv wrote to."
        )
    return inputs


def _inputs_among(paths: Iterable[Path]) -> list[Path]:
    by_name = {
        path.name: path
        for path in paths
        if path.is_file()
        and (
            plain_name(path).endswith((REQUESTS_CSV, RESPONSES_SUFFIX))
            or (plain_name(path).endswith(".csv") and first_line_is_rows_header(path))
        )
    }
    # A file and its compressed copy are one input.
    unique = (path for path in by_name.values() if path.name == plain_name(path) or plain_name(path) not in by_name)
    return sorted(unique, key=_natural)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Return a sort key that puts run2 before run10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", path.name) if part]


def _runs_beside(path: Path) -> str:
    try:
        beside = sorted(path.parent.glob(f"*{REQUESTS_CSV}"), key=_natural)
    except OSError:
        return ""
    names = [str(other.with_name(other.name.removesuffix(REQUESTS_CSV))) for other in beside[:3]]
    return f" Runs in that folder: {', '.join(names)}{', ...' if len(beside) > 3 else ''}." if names else ""
