"""The stages of a benchmark build: files of rows that can be resumed, shared out among machines, and counted.

A stage reads rows and writes one row for each, in their order, into a JSON Lines file. A row whose `refusal` is not
null goes no further; it stays in the file with the reason, so that what a stage reads is always what it keeps plus what
it refuses. Beside `NAME.jsonl` stands `NAME.json`: the settings, the inputs and the counts of the stage, and the sha256
of the rows that it counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from ..files import as_json, sha256_of, whole_file

# The reason of rows that a later run of the same stage asks for again; every other reason is final.
NO_REPLY = "no reply from the server"


class Refusal(ValueError):
    """Why a row goes no further.

    Attributes:
        reason: out of the small vocabulary of a stage, the same for all rows refused alike: they are counted by it.
        detail: what is particular about this row.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class StageReport:
    """The counts of a stage: `read == kept + sum(refused.values())`."""

    stage: str
    read: int
    kept: int
    refused: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count`: the rows number - 1, number - 1 + count, ... of a stage's input."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"A shard is I/N with 1 <= I <= N, got {self.number}/{self.count}.")

    @classmethod
    def parse(cls, text: str) -> Shard:
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise ValueError(f"A shard is written I/N, such as 1/4, got {text!r}.")
        return cls(int(number), int(count))

    def path(self, path: Path) -> Path:
        return path.with_name(f"{path.stem}.shard-{self.number}-of-{self.count}{path.suffix}")


class Tally:
    """The rows of a stage's file, as they are written or read: counted by refusal, and digested."""

    def __init__(self) -> None:
        self.refusals: Counter[str | None] = Counter()
        self._digest = hashlib.sha256()

    def add(self, line: bytes, refusal: str | None) -> None:
        self.refusals[refusal] += 1
        self._digest.update(line)

    @property
    def count(self) -> int:
        return self.refusals.total()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def run_stage(
    path: Path,
    rows: Iterable[Any],
    work: Callable[[Iterator[Any]], Iterable[dict]],
    *,
    settings: dict[str, Any],
    inputs: dict[str, str],
    total: Callable[[], int] | None = None,
    shard: Shard | None = None,
) -> StageReport:
    """Writes the rows that `work` makes of `rows`, or goes on where an earlier run stopped.

    A stage that is finished is not run again unless its inputs changed or rows of it had no reply. While it runs, its
    rows stand in `NAME.jsonl.partial`; a line that was cut off with the run is dropped, and as many inputs are skipped
    as lines are left.

    Args:
        path: the stage's file, `NAME.jsonl`.
        rows: the inputs, the same in every run.
        work: turns an iterator of inputs into as many rows, in their order.
        settings: what the user chose. A stage made with other settings is never overwritten.
        inputs: a digest of each input, by name; where one changed, the stage is made anew.
        total: counts the inputs for the progress bar; called only if there is work to do.
        shard: work on this part of the inputs alone, into a file of its own; `merge_stage` unites the parts.

    Raises:
        ValueError: the file was made with other settings.
        OSError: the disk is full, or a file cannot be read or written; what was done before is kept.
    """
    if shard is not None:
        path, rows = shard.path(path), islice(rows, shard.number - 1, None, shard.count)
    path.parent.mkdir(parents=True, exist_ok=True)
    made_by = {"settings": settings, "inputs": inputs}
    finished = read_report(path, made_by)
    if finished is not None and NO_REPLY not in finished.refused:
        return finished

    # Every command of this package imports this module, and few of them show a bar.
    from tqdm.auto import tqdm

    count = None if total is None else total()
    if count is not None and shard is not None:
        count = len(range(shard.number - 1, count, shard.count))
    partial = partial_of(path)
    try:
        tally = claim_partial(partial, made_by)
        with open(partial, "ab") as file:
            results = iter(work(islice(rows, tally.count, None)))
            for row in tqdm(results, desc=path.stem, total=count, initial=tally.count, unit="row"):
                # A row is on its way to the disk before the next is begun: a killed run loses none.
                write_row(file, row, tally)
                file.flush()
        return finish(path, made_by, tally)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(
            error.errno, f"{error.strerror}; what was done is kept, start the same command again", str(partial)
        ) from error


def merge_stage(path: Path, count: int) -> StageReport:
    """Unites the `count` parts of a stage; the files are, byte for byte, those of a run without shards.

    Raises:
        FileNotFoundError: a part is missing or not finished.
        ValueError: the parts were made with different settings or inputs.
    """
    parts = [Shard(number, count).path(path) for number in range(1, count + 1)]
    reports = [load_report(part, f"run shard {part.stem.partition('.shard-')[2]} first") for part in parts]
    made_by = {name: reports[0][name] for name in ("settings", "inputs")}
    for part, report in zip(parts, reports, strict=True):
        if {name: report[name] for name in made_by} != made_by:
            raise ValueError(f"{part} was made with other settings or inputs than {parts[0]}; run it again.")
    tally = Tally()
    with ExitStack() as stack:
        files = [stack.enter_context(open(part, "rb")) for part in parts]
        merged = stack.enter_context(open(partial_of(path), "wb"))
        # The first file is the first to end, as row number r stands in file r mod count.
        while files:
            for number, file in enumerate(files):
                line = file.readline()
                if not line:
                    files = files[:number]
                    break
                merged.write(line)
                tally.add(line, json.loads(line)["refusal"])
    return finish(path, made_by, tally)


def read_all_rows(path: Path) -> Iterator[dict]:
    """The rows of a finished stage, those refused included."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: run the stage {path.stem!r} first.")
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def read_rows(path: Path) -> Iterator[dict]:
    """The rows of a finished stage that were not refused."""
    return (row for row in read_all_rows(path) if row["refusal"] is None)


def write_rows(path: Path, rows: Iterable[dict], *, settings: dict[str, Any], inputs: dict[str, str]) -> StageReport:
    """Writes the file of a stage that needs all of its input at once; one that is finished is not run again.

    Raises:
        ValueError: the file was made with other settings.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made_by = {"settings": settings, "inputs": inputs}
    finished = read_report(path, made_by)
    if finished is not None:
        return finished
    tally = Tally()
    with open(partial_of(path), "wb") as file:
        for row in rows:
            write_row(file, row, tally)
    return finish(path, made_by, tally)


def write_row(file: BinaryIO, row: dict, tally: Tally) -> None:
    # ASCII alone: a reply may hold half a surrogate pair, which UTF-8 has no bytes for.
    line, refusal = f"{json.dumps(row)}\n".encode("ascii"), row["refusal"]
    file.write(line)
    tally.add(line, refusal)


def finish(path: Path, made_by: dict[str, Any], tally: Tally) -> StageReport:
    """Puts the rows in their place, and their report beside them.

    The report comes first: where a crash comes between the two, its digest tells that it is not of the rows that lie
    there, and the next run has nothing to do but this.
    """
    partial = partial_of(path)
    refused = {reason: count for reason, count in sorted(tally.refusals.items(), key=str) if reason is not None}
    report = StageReport(path.stem, tally.count, tally.refusals[None], refused)
    with whole_file(report_path(path)) as file:
        written = {**asdict(report), **made_by, "sha256": tally.sha256}
        file.write(json.dumps(written, ensure_ascii=False, indent=2) + "\n")
    os.replace(partial, path)
    partial_claim(partial).unlink(missing_ok=True)
    return report


def report_path(path: Path) -> Path:
    return path.with_suffix(".json")


def load_report(path: Path, remedy: str) -> dict[str, Any]:
    """What stands in the report of a finished stage: that of `StageReport`, settings, inputs and sha256.

    Raises:
        FileNotFoundError: the rows or the report are missing; `remedy` says what is to be done.
        ValueError: the rows are not those that the report counts, as after a crash in the last moment of the stage.
    """
    if not (path.is_file() and report_path(path).is_file()):
        raise FileNotFoundError(f"{path} is missing or unfinished: {remedy}.")
    report = json.loads(report_path(path).read_text(encoding="utf-8"))
    if report.get("sha256") != sha256_of(path):
        raise ValueError(f"{path} holds other rows than {report_path(path).name} counts: {remedy}.")
    return report


def read_report(path: Path, made_by: dict[str, Any]) -> StageReport | None:
    """The counts of a finished stage, None where there is none or its inputs changed; raises for other settings."""
    if not (path.is_file() and report_path(path).is_file()):
        return None
    report = json.loads(report_path(path).read_text(encoding="utf-8"))
    made_by = as_json(made_by)
    refuse_other_settings(path, report["settings"], made_by["settings"])
    if report["inputs"] != made_by["inputs"] or report.get("sha256") != sha256_of(path):
        return None
    return StageReport(report["stage"], report["read"], report["kept"], report["refused"])


def claim_partial(partial: Path, made_by: dict[str, Any]) -> Tally:
    """Readies the file of a run that was stopped, or a new one, and counts the rows that it has."""
    claim, made_by = partial_claim(partial), as_json(made_by)
    if claim.is_file() and partial.is_file():
        earlier = json.loads(claim.read_text(encoding="utf-8"))
        tally = keep_whole_lines(partial)
        if tally.count:
            refuse_other_settings(partial, earlier["settings"], made_by["settings"])
        if earlier == made_by:
            return tally
    partial.write_bytes(b"")
    with whole_file(claim) as file:
        file.write(json.dumps(made_by, ensure_ascii=False))
    return Tally()


def partial_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def partial_claim(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def keep_whole_lines(partial: Path) -> Tally:
    tally = Tally()
    end = 0
    with open(partial, "rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                refusal = json.loads(line)["refusal"]
            except ValueError:
                break
            tally.add(line, refusal)
            end += len(line)
        file.truncate(end)
    return tally


def refuse_other_settings(path: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    changed = sorted(name for name in {*earlier, *now} if earlier.get(name) != now.get(name))
    if changed:
        before = ", ".join(f"{name} {earlier.get(name)!r}, not {now.get(name)!r}" for name in changed)
        raise ValueError(f"{path} was made with {before}. Use those settings, or another folder, or remove the file.")
