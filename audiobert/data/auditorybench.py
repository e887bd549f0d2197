"""Reading AuditoryBench: the CSV files of its two tasks as one `datasets.DatasetDict`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Value

from ..csv_files import read_csv
from .masking import MASK

SPLITS = ("train", "dev", "test", "wiki")
PITCH_ANSWERS = ("higher", "lower")
FEATURES = Features(
    {"sentence": Value("string"), "answer": Value("string"), "spans": [Value("string")], "task": Value("string")}
)

# For each task: the column of the answer and those of the auditory spans.
_COLUMNS = {"animal": ("animal", ("description",)), "pitch": ("answer", ("span1", "span2"))}
TASKS = tuple(_COLUMNS)


def load_auditorybench(data_dir: str | Path, tasks: Sequence[str] = TASKS) -> DatasetDict:
    """
    Reads `{task}_{split}.csv` for every task and split (AuditoryBench: paper, section II).

    Every row of the files becomes a row of the result, in the files' order, the tasks one after the other. Spans are
    given as they are written, also where they are empty or no part of their sentence.

    Args:
        data_dir: the folder of the CSV files.
        tasks: `"animal"` (name the animal that makes a sound), `"pitch"` (which of two sounds is higher), or both.

    Returns:
        Splits train, dev, test and wiki with the columns sentence (str, with `[MASK]` for the answer), answer (str),
        spans (list of str: one for animal, two for pitch) and task (str).

    Raises:
        ValueError: for an unknown task, a missing column, or a row without an answer or without `[MASK]`, with the
            file and the line.
        FileNotFoundError: if a file is missing.
    """
    if isinstance(tasks, str) or not tasks or len(set(tasks)) != len(tasks) or not set(tasks) <= set(TASKS):
        raise ValueError(f"`tasks` must be a list of distinct names out of {', '.join(TASKS)}, got {tasks!r}.")
    splits = {}
    for split in SPLITS:
        rows = [row for task in tasks for row in read_rows(Path(data_dir) / f"{task}_{split}.csv", task)]
        # By columns: a small benchmark can have a split without rows, of which `from_list` knows no columns.
        splits[split] = Dataset.from_dict({name: [row[name] for row in rows] for name in FEATURES}, features=FEATURES)
    return DatasetDict(splits)


def choose_splits(dataset: DatasetDict | Dataset, splits: Sequence[str] | None = None) -> dict[str, Dataset]:
    """
    The parts of a dataset that a model is evaluated on, by name.

    Args:
        dataset: what `load_auditorybench` gives, or one split of it.
        splits: names of splits of a `DatasetDict`; all but train if omitted.

    Raises:
        ValueError: for a split that is not there, or names of splits for a single `Dataset`.
    """
    if isinstance(dataset, Dataset):
        if splits is not None:
            raise ValueError("`splits` are of a DatasetDict, but a single Dataset was given: leave them out.")
        return {str(dataset.split or "data"): dataset}
    names = [name for name in dataset if name != "train"] if splits is None else splits
    if isinstance(names, str) or not names or not set(names) <= set(dataset):
        raise ValueError(f"`splits` must be a list of names out of {', '.join(dataset)}, got {names!r}.")
    return {name: dataset[name] for name in names}


def read_rows(path: Path, task: str) -> Iterator[dict]:
    """
    The rows of one CSV file of a task, as `load_auditorybench` gives them.

    Read by `read_csv`: a span "NA" stays text, doubled quotes are undone, and a field may hold line breaks.
    """
    answer_column, span_columns = _COLUMNS[task]
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}: the data folder must hold {path.name}.")
    for row in read_csv(path, (answer_column, "sentence", *span_columns)):
        where = f"{path}, line {row.line}"
        if row.misfit is not None:
            raise ValueError(f"{where}: {row.misfit}.")
        check_row(row.cells["sentence"], row.cells[answer_column], task, where)
        yield {
            "sentence": row.cells["sentence"],
            "answer": row.cells[answer_column],
            "spans": [row.cells[column] for column in span_columns],
            "task": task,
        }


def check_row(sentence: str, answer: str, task: str, where: str) -> None:
    """
    Raises:
        ValueError: with `where`, if a sentence has no `[MASK]`, or an answer is none to its task.
    """
    if MASK not in sentence:
        raise ValueError(f"{where}: the sentence {sentence!r} has no {MASK} for the answer.")
    if not answer.strip():
        raise ValueError(f"{where}: the answer is empty.")
    if task == "pitch" and answer not in PITCH_ANSWERS:
        raise ValueError(f"{where}: the answer must be {' or '.join(PITCH_ANSWERS)}, got {answer!r}.")
