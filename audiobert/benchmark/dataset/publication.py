"""A benchmark as it is published: CSV, Parquet, statistics and a dataset card; and reading it back."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from datasets import Features, Value

from ...data.auditorybench import FEATURES, SPLITS, TASKS, check_row, read_rows
from ...files import sha256_of
from ...reports.tables import TextTable, plain_markdown
from .leakage import LeakageReport, leakage
from .statistics import Statistics, benchmark_statistics

CARD_TEMPLATE = Path(__file__).with_name("dataset_card.md")
CARD_NAME = "README.md"
STATISTICS_NAME = "statistics.json"

# The columns of the published CSV files, in their order.
_CSV_COLUMNS = {"animal": ("animal", "description", "sentence"), "pitch": ("sentence", "answer", "span1", "span2")}
_SPAN_COUNTS = {"animal": 1, "pitch": 2}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class StageCount(TypedDict):
    """The counts of one stage; `read` is `kept` and all of `refused` together."""

    stage: str
    read: int
    kept: int
    refused: dict[str, int]
    """By reason."""


class Terms(TypedDict, total=False):
    """What can be left out of a `Provenance`."""

    license: str
    """Of the dataset, as the Hub names it, such as "mit"; "other", with the licenses of the recordings, if omitted."""
    pretty_name: str
    """Title of the card; made of `metadata` if omitted."""


class Provenance(Terms):
    """Where a benchmark comes from, for its card. It is published as it is: names, and no paths of a machine."""

    metadata: str
    """Name of the recordings' metadata."""
    model: str | None
    """The LLM; None if none was asked, as for Wikipedia's sets alone."""
    sampling: dict[str, dict[str, Any]]
    """How the LLM sampled, by the stage that asked it."""
    templates: dict[str, str]
    """The sha256 of each template and list that shaped the requests, by name."""
    stages: list[StageCount]
    """In the order in which they ran."""
    licenses: dict[str, int]
    """How many of the recordings have each license; "" where none is stated."""
    sources: dict[str, int]
    """How many of the recordings come from each source; "" where none is stated."""
    reviewed: bool
    """Whether a person decided on every animal prompt."""
    split: str
    """"grouped" or "plain", as `split_rows` does it."""
    seed: int
    """Of the split."""
    wikipedia: dict[str, dict[str, Any]]
    """Of each table of facts, by what it is of: source, date and whatever else is known; None where it is not."""


@dataclass(frozen=True)
class Publication:
    """What [`write_dataset`] wrote."""

    folder: Path
    statistics: Statistics
    leakage: LeakageReport
    provenance: Provenance


def write_dataset(
    out: str | Path, splits: Mapping[str, Sequence[Mapping[str, Any]]], provenance: Provenance
) -> Publication:
    """
    Writes a benchmark into a folder that `datasets.load_dataset` and `load_auditorybench` read.

    The folder gets `{task}_{split}.csv` with the columns of the published AuditoryBench, `data/{task}/{split}.parquet`
    with sentence (str), answer (str), spans (list of str), task (str) and recordings (list of str), the card
    `README.md` with a configuration for each task, and `statistics.json`, which also has the sha256 of each file of
    rows. Other files in it are left alone. All are written before the first earlier one is replaced; the same rows and
    provenance give the same bytes.

    `datasets` knows no empty splits: where a task has no row in a split, the CSV file has a header alone, and the split
    has no Parquet file and is not among those of the card's configuration; a task without any row has no configuration.

    Args:
        out: the folder; made if it is not there.
        splits: the rows of train, dev, test and wiki, with the keys task, sentence, answer, spans and recordings, other
            keys being ignored; texts are written as they are.
        provenance: see `Provenance`.

    Raises:
        ValueError: for other splits, no row at all, a row that the data cannot hold (with its split and number), a key
            that the provenance lacks, or counts of a stage that do not add up.
        OSError: if the folder cannot be written to, for instance as the disk is full; the earlier files are kept.
    """
    if set(splits) != set(SPLITS):
        raise ValueError(f"The splits must be {', '.join(SPLITS)}, got {', '.join(splits) or 'none'}.")
    if not any(splits.values()):
        raise ValueError("There is no row to write in any split.")
    for split in SPLITS:
        for number, row in enumerate(splits[split]):
            _check_row(row, f"Row {number} of {split}")
    _check_provenance(provenance)
    counted, overlaps = benchmark_statistics(splits), leakage(splits)
    figures: dict[str, Any] = {
        "statistics": counted.to_dict(),
        "leakage": overlaps.to_dict(),
        "provenance": dict(provenance),
    }

    out = Path(out)
    unfinished = out / ".unfinished"
    # Left behind by a run that was killed.
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        for task in TASKS:
            for split in SPLITS:
                rows = [row for row in splits[split] if row["task"] == task]
                _write_csv(unfinished / f"{task}_{split}.csv", rows, task)
                if rows:
                    _write_parquet(unfinished / _parquet_name(task, split), rows)
        figures["files"] = {
            path.relative_to(unfinished).as_posix(): sha256_of(path)
            for path in sorted(unfinished.rglob("*"))
            if path.is_file()
        }
        _write_text(unfinished / STATISTICS_NAME, json.dumps(figures, ensure_ascii=False, indent=2) + "\n")
        _write_text(unfinished / CARD_NAME, dataset_card(counted, overlaps, provenance))
        for name in (_parquet_name(task, split) for task in TASKS for split in SPLITS):
            if not (unfinished / name).is_file():
                (out / name).unlink(missing_ok=True)
        for path in sorted(path for path in unfinished.rglob("*") if path.is_file()):
            target = out / path.relative_to(unfinished)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Publication(out, counted, overlaps, provenance)


def read_dataset(folder: str | Path) -> dict[str, list[dict[str, Any]]]:
    """
    The rows of each split of a folder, for statistics and leakage: one that `write_dataset` wrote, or the CSV files of
    the published AuditoryBench.

    Returns:
        For train, dev, test and wiki, rows with sentence, answer, spans, task and, if the folder has Parquet files,
        recordings.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is not what it should be (see `load_auditorybench`), or not the one that `statistics.json`
            was written with, as after a crash while a dataset was replaced.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    _check_files(folder)
    return {split: [row for task in TASKS for row in _read_part(folder, task, split)] for split in SPLITS}


def dataset_card(statistics: Statistics, leakage: LeakageReport, provenance: Provenance) -> str:
    """The card of a dataset, as Markdown with the YAML that the Hub and `datasets` read."""
    from huggingface_hub import DatasetCard, DatasetCardData

    title = provenance.get("pretty_name") or f"Auditory knowledge from {provenance['metadata']}"
    captions = [split.captions for by_split in statistics.tasks.values() for split in by_split.values()]
    data = DatasetCardData(
        pretty_name=plain_markdown(title),
        language="en",
        **_license(provenance),
        task_categories=["fill-mask"],
        size_categories=[next((size for limit, size in _SIZES if sum(captions) < limit), "1M<n<10M")],
        tags=["auditory-knowledge", "audiobert"],
        configs=[
            {
                "config_name": task,
                "data_files": [
                    {"split": split, "path": _parquet_name(task, split)}
                    for split, counted in by_split.items()
                    if counted.captions
                ],
            }
            for task, by_split in statistics.tasks.items()
            if any(counted.captions for counted in by_split.values())
        ],
    )
    card = DatasetCard.from_template(
        data,
        template_str=CARD_TEMPLATE.read_text(encoding="utf-8"),
        title=plain_markdown(title),
        provenance={**provenance, "metadata": plain_markdown(provenance["metadata"])},
        statistics=statistics.to_markdown(),
        leakage=leakage.to_markdown(),
        sampling=_table(("stage", "sampling"), _described(provenance["sampling"])),
        templates=_table(("template", "sha256"), provenance["templates"].items()),
        stages=_stage_table(provenance["stages"]),
        licenses=_count_table("license", provenance["licenses"]),
        sources=_count_table("source", provenance["sources"]),
        wikipedia=_table(("facts", "where from"), _described(provenance["wikipedia"])),
    )
    # Parts of the template that are left out leave their blank lines.
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


# --- checks ----------------------------------------------------------------------------------------------------------


def _check_row(row: Mapping[str, Any], where: str) -> None:
    missing = [key for key in ("task", "sentence", "answer", "spans", "recordings") if key not in row]
    if missing:
        raise ValueError(f"{where} has no {', '.join(missing)}.")
    task, spans = row["task"], row["spans"]
    if task not in TASKS:
        raise ValueError(f"{where}: the task must be {' or '.join(TASKS)}, got {task!r}.")
    if len(spans) != _SPAN_COUNTS[task] or isinstance(spans, str):
        raise ValueError(f"{where}: the task {task} has a list of {_SPAN_COUNTS[task]} spans, got {spans!r}.")
    for text in (row["sentence"], row["answer"], *spans, *row["recordings"]):
        _check_text(text, where)
    check_row(row["sentence"], row["answer"], task, where)


def _check_text(text: Any, where: str) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{where}: expected text, got {text!r}.")
    # Python's csv reads no NUL before 3.11, and half a surrogate pair has no bytes in UTF-8.
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{where}: {text!r} holds a character that no file of the dataset can hold.")


def _check_provenance(provenance: Provenance) -> None:
    missing = sorted(Provenance.__required_keys__ - provenance.keys())
    if missing:
        raise ValueError(f"The provenance lacks {', '.join(missing)}.")
    for stage in provenance["stages"]:
        lost = stage["read"] - stage["kept"] - sum(stage["refused"].values())
        if lost:
            raise ValueError(
                f"The stage {stage['stage']!r} read {stage['read']} rows, but those kept and refused are {lost} fewer."
            )


def _check_files(folder: Path) -> None:
    path = folder / STATISTICS_NAME
    if not path.is_file():
        return
    try:
        files = json.loads(path.read_text(encoding="utf-8")).get("files", {})
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); write the dataset again.") from error
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"No file {folder / name}, which {path.name} counts; write the dataset again.")
        if sha256_of(folder / name) != digest:
            raise ValueError(f"{folder / name} is not the file that {path.name} counts; write the dataset again.")


# --- files -----------------------------------------------------------------------------------------------------------


def _parquet_name(task: str, split: str) -> str:
    return f"data/{task}/{split}.parquet"


def _write_text(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]], task: str) -> None:
    """Lines end with CR LF, so that Python's csv quotes either of them inside a field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(_CSV_COLUMNS[task])
    for row in rows:
        if task == "animal":
            writer.writerow([row["answer"], *row["spans"], row["sentence"]])
        else:
            writer.writerow([row["sentence"], row["answer"], *row["spans"]])
    _write_text(path, buffer.getvalue())


def _features() -> Features:
    return Features({**FEATURES, "recordings": [Value("string")]})


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Written by pyarrow itself: the schema carries the features, and no fingerprint of the run."""
    import pyarrow
    import pyarrow.parquet

    schema = _features().arrow_schema
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [row[name] for row in rows] for name in schema.names}
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), path, compression="zstd")


def _read_part(folder: Path, task: str, split: str) -> list[dict[str, Any]]:
    """The rows of one task in one split; from CSV, which does not know the recordings, where there is no Parquet."""
    import pyarrow
    import pyarrow.parquet

    path = folder / _parquet_name(task, split)
    if not path.is_file():
        rows = list(read_rows(folder / f"{task}_{split}.csv", task))
        if rows and (folder / "data").is_dir():
            raise FileNotFoundError(f"No file {path}, though {task}_{split}.csv has rows; write the dataset again.")
        return rows
    try:
        return pyarrow.parquet.read_table(path, schema=_features().arrow_schema).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is not a Parquet file of a benchmark ({error}); write the dataset again.") from error


# --- tables of the card ----------------------------------------------------------------------------------------------


def _license(provenance: Provenance) -> dict[str, Any]:
    if "license" in provenance:
        return {"license": provenance["license"]}
    # Fields that the Hub asks for where the license is none that it knows.
    return {"license": "other", "license_name": "see-card", "license_link": f"{CARD_NAME}#licenses-and-sources"}


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return TextTable("", header, list(rows), names=len(header)).to_markdown()


def _described(by_name: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """`{"a": {"b": 1, "c": None, "d": 2}}` as rows: a, "b: 1; d: 2"."""
    return [
        (name, "; ".join(f"{key}: {item}" for key, item in value.items() if item is not None))
        for name, value in by_name.items()
    ]


def _stage_table(stages: Iterable[StageCount]) -> str:
    rows = []
    for stage in stages:
        rows.append([stage["stage"], "read", f"{stage['read']:,}"])
        rows += [["", f"refused: {reason}", f"{count:,}"] for reason, count in _most_first(stage["refused"])]
        rows.append(["", "kept", f"{stage['kept']:,}"])
    return TextTable("", ("stage", "rows", "count"), rows, names=2).to_markdown()


def _count_table(name: str, counts: Mapping[str, int]) -> str:
    rows = [[value or "not stated", f"{count:,}"] for value, count in _most_first(counts)]
    return TextTable("", (name, "recordings"), rows, names=1).to_markdown()


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
