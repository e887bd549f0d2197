"""The stages of a benchmark build: files of rows that can be resumed, shared out among machines, and counted.

A stage reads rows and writes one row for each, in their order, into a JSON Lines file. A row whose `refusal` is not
null goes no further; it stays in the file with the reason, so that what a stage reads is always what it keeps plus what
it refuses. Beside `NAME.jsonl` stands `NAME.json`: the settings, the inputs and the counts of the stage.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..files import whole_file

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
    # As it is read back: JSON has no tuples.
    made_by = json.loads(json.dumps({"settings": settings, "inputs": inputs}))
    finished = read_report(path, made_by)
    if finished is not None and NO_REPLY not in finished.refused:
        return finished

    count = None if total is None else total()
    if count is not None and shard is not None:
        count = len(range(shard.number - 1, count, shard.count))
    partial = path.with_name(f"{path.name}.partial")
    tally = claim_partial(partial, made_by)
    try:
        with open(partial, "a", encoding="utf-8", newline="\n") as file:
            results = iter(work(islice(rows, tally.total(), None)))
            for row in tqdm(results, desc=path.stem, total=count, initial=tally.total(), unit="row"):
                file.write(encode_row(row))
                # A row is on its way to the disk before the next is begun: a killed run loses none.
                file.flush()
                tally[row["refusal"]] += 1
        os.replace(partial, path)
        partial_claim(partial).unlink(missing_ok=True)
        return write_report(path, made_by, tally)
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
    for part in parts:
        if not (part.is_file() and report_path(part).is_file()):
            raise FileNotFoundError(f"{part} is missing or unfinished; run that shard first.")
    reports = [json.loads(report_path(part).read_text(encoding="utf-8")) for part in parts]
    made_by = {name: reports[0][name] for name in ("settings", "inputs")}
    for part, report in zip(parts, reports, strict=True):
        if {name: report[name] for name in made_by} != made_by:
            raise ValueError(f"{part} was made with other settings or inputs than {parts[0]}; run it again.")
    tally: Counter[str | None] = Counter()
    with ExitStack() as stack:
        files = [stack.enter_context(open(part, encoding="utf-8", newline="\n")) for part in parts]
        merged = stack.enter_context(whole_file(path))
        # The first file is the first to end, as row number r stands in file r mod count.
        while files:
            for number, file in enumerate(files):
                line = file.readline()
                if not line:
                    files = files[:number]
                    break
                merged.write(line)
                tally[json.loads(line)["refusal"]] += 1
    return write_report(path, made_by, tally)


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
    """Writes the file of a stage that needs all of its input at once, as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tally: Counter[str | None] = Counter()
    with whole_file(path) as file:
        for row in rows:
            file.write(encode_row(row))
            tally[row["refusal"]] += 1
    return write_report(path, {"settings": settings, "inputs": inputs}, tally)


def encode_row(row: dict) -> str:
    # ASCII alone: a reply may hold half a surrogate pair, which UTF-8 has no bytes for.
    return json.dumps(row) + "\n"


def report_path(path: Path) -> Path:
    return path.with_suffix(".json")


def read_report(path: Path, made_by: dict[str, Any]) -> StageReport | None:
    """The counts of a finished stage, None where there is none or its inputs changed; raises for other settings."""
    if not (path.is_file() and report_path(path).is_file()):
        return None
    report = json.loads(report_path(path).read_text(encoding="utf-8"))
    refuse_other_settings(path, report["settings"], made_by["settings"])
    if report["inputs"] != made_by["inputs"]:
        return None
    return StageReport(report["stage"], report["read"], report["kept"], report["refused"])


def write_report(path: Path, made_by: dict[str, Any], tally: Counter[str | None]) -> StageReport:
    refused = {reason: count for reason, count in sorted(tally.items(), key=str) if reason is not None}
    report = StageReport(path.stem, tally.total(), tally[None], refused)
    with whole_file(report_path(path)) as file:
        file.write(json.dumps({**asdict(report), **made_by}, ensure_ascii=False, indent=2) + "\n")
    return report


def claim_partial(partial: Path, made_by: dict[str, Any]) -> Counter[str | None]:
    """Readies the file of a run that was stopped, or a new one, and counts its rows by their refusal."""
    claim = partial_claim(partial)
    if claim.is_file() and partial.is_file():
        earlier = json.loads(claim.read_text(encoding="utf-8"))
        refuse_other_settings(partial, earlier["settings"], made_by["settings"])
        if earlier == made_by:
            return keep_whole_lines(partial)
    partial.unlink(missing_ok=True)
    claim.write_text(json.dumps(made_by, ensure_ascii=False), encoding="utf-8")
    return Counter()


def partial_claim(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def keep_whole_lines(partial: Path) -> Counter[str | None]:
    tally: Counter[str | None] = Counter()
    end = 0
    with open(partial, "rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                tally[json.loads(line)["refusal"]] += 1
            except ValueError:
                break
            end += len(line)
        file.truncate(end)
    return tally


def refuse_other_settings(path: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    changed = sorted(name for name in {*earlier, *now} if earlier.get(name) != now.get(name))
    if changed:
        before = ", ".join(f"{name} {earlier.get(name)!r}, not {now.get(name)!r}" for name in changed)
        raise ValueError(f"{path} was made with {before}. Use those settings, or another folder, or remove the file.")
