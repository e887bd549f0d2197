"""The tables of the report, each as text cells: ours and, where they are at hand, the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..benchmark.dataset.statistics import PAPER_TABLE_I, SplitStatistics, Statistics
from ..evaluation.comparison import Accuracy, interval_text
from ..evaluation.predictions import COMBINED
from ..evaluation.preservation import Preservation
from ..reports.paper import PaperTable
from ..reports.tables import TextTable, percent
from .findings import Findings, OverSeeds


def mean_and_sd(figure: OverSeeds | Accuracy, scale: float = 100) -> str:
    """ "36.91 ± 0.72"; without the deviation for one seed."""
    deviation = "" if figure.sd is None else f" ± {scale * figure.sd:.2f}"
    return f"{scale * figure.mean:.2f}{deviation}"


def accuracy_columns(findings: Findings) -> list[tuple[str, str]]:
    """Split and task of every column of Table III: by task, each on every split."""
    known = {
        (split, task)
        for splits in findings.accuracies.accuracies.values()
        for split in splits
        for task in splits[split]
    }
    splits = dict.fromkeys(split for parts in findings.accuracies.accuracies.values() for split in parts)
    return [(split, task) for task in ("animal", "pitch", COMBINED) for split in splits if (split, task) in known]


def accuracy_table(findings: Findings, paper: PaperTable) -> TextTable:
    """Table III: the models, and below them the paper's."""
    columns = accuracy_columns(findings)
    rows = [
        [model, _seeds_text(findings, model), *(_cell(findings, model, column, mean_and_sd) for column in columns)]
        for model in findings.models
    ]
    for model in paper.models:
        known = [paper.value(model, *column) for column in columns]
        rows.append([f"{model} (paper)", "-", *("-" if value is None else f"{value:.2f}" for value in known)])
    return TextTable("Table III", ["model", "seeds", *_names(columns)], rows, names=1)


def interval_table(findings: Findings) -> TextTable:
    """The intervals of the accuracies, in the same cells."""
    columns = accuracy_columns(findings)
    rows = [
        [model, *(_cell(findings, model, column, lambda part: interval_text(part.interval)) for column in columns)]
        for model in findings.models
    ]
    return TextTable("95 % intervals", ["model", *_names(columns)], rows, names=1)


def difference_table(findings: Findings) -> TextTable:
    """AudioBERT less each of the others, in points, with intervals; `*` where both tests tell them apart."""
    columns = [(column.split, column.task) for column in next(iter(findings.comparisons.values())).columns]
    rows = []
    for control, comparison in findings.comparisons.items():
        told = findings.significant(control, True) + findings.significant(control, False)
        cells = [
            f"{100 * column.difference:+.2f}{'*' * (f'{column.task} {column.split}' in told)} "
            f"{interval_text(column.interval, sign='+')}"
            for column in comparison.columns
        ]
        rows.append([control, _seeds_text(findings, control), *cells])
    return TextTable("Differences", ["control", "seeds", *_names(columns)], rows, names=1)


def detector_table(findings: Findings) -> TextTable:
    """Table II: F1 by what the detector was trained on and what it is tested on, in percent."""
    found = {(one.trained_on, one.split, one.task): one for one in findings.detectors}
    tasks = list(dict.fromkeys(task for _, _, task in found))
    rows = []
    for trained_on, split in dict.fromkeys((trained_on, split) for trained_on, split, _ in found):
        parts = [found.get((trained_on, split, task)) for task in tasks]
        seeds = max(part.token_f1.seeds for part in parts if part is not None)
        cells = [
            "-" if part is None else mean_and_sd(getattr(part, score))
            for score in ("token_f1", "exact_f1")
            for part in parts
        ]
        rows.append([trained_on, split, f"{seeds}", *cells])
    scores = [f"{score}, {task}" for score in ("token F1", "exact F1") for task in tasks]
    return TextTable("Table II", ["trained on", "split", "seeds", *scores], rows, names=2)


def alarm_table(findings: Findings) -> TextTable:
    """What each detector finds in plain English."""
    rows = [
        [
            *(alarm.trained_on, f"{alarm.per_1000_words.seeds}", f"{alarm.passages:,}", f"{alarm.words:,}"),
            *(mean_and_sd(alarm.per_1000_words, 1), mean_and_sd(alarm.passages_with_alarm)),
        ]
        for alarm in findings.alarms
    ]
    header = ("trained on", "seeds", "passages", "words", "false alarms per 1,000 words", "passages with one, %")
    return TextTable("False alarms", header, rows, names=1)


def perplexity_table(findings: Findings) -> TextTable:
    """Pseudo-perplexity on plain English, with and without the switch."""
    rows = [[mode, f"{figure.seeds}", mean_and_sd(figure, 1)] for mode, figure in findings.perplexities.items()]
    return TextTable("Pseudo-perplexity", ("model", "seeds", "pseudo-perplexity"), rows, names=1)


def identity_table(preservation: Mapping[int, Preservation]) -> TextTable:
    """How many plain prompts are answered as BERT does, bit for bit."""
    rows = []
    for seed, measured in preservation.items():
        identical = measured.answers
        unheard = identical.prompts - identical.heard
        share = percent(identical.identical / unheard if unheard else None)
        counts = (identical.prompts, identical.heard, unheard, identical.identical)
        rows.append([f"{seed}", *(f"{count:,}" for count in counts), share])
    header = ("seed", "prompts", "something heard", "nothing heard", "of these identical", "%")
    return TextTable("Plain prompts", header, rows, names=0)


def statistics_table(statistics: Statistics) -> TextTable:
    """Table I, each figure beside the paper's."""
    rows = []
    for task, by_split in statistics.tasks.items():
        for split, ours in by_split.items():
            theirs = PAPER_TABLE_I[task][split]
            cells = [cell for pair in zip(_sizes(ours), _sizes(theirs), strict=True) for cell in pair]
            rows.append([task, split, *cells])
    names = ("captions", "words per caption", "total tokens")
    header = ["task", "split", *(name for figure in names for name in (figure, f"{figure} (paper)"))]
    return TextTable("Table I", header, rows, names=2)


def _sizes(counted: SplitStatistics) -> tuple[str, str, str]:
    words = counted.words_per_caption
    return f"{counted.captions:,}", "-" if words is None else f"{words:.2f}", f"{counted.total_tokens:,}"


def _names(columns: list[tuple[str, str]]) -> list[str]:
    return [f"{task} {split}" for split, task in columns]


def _seeds_text(findings: Findings, model: str) -> str:
    return f"{findings.seeds[model]}" if findings.seeds[model] else "-"


def _cell(findings: Findings, model: str, column: tuple[str, str], text: Callable[[Accuracy], str]) -> str:
    split, task = column
    accuracy = findings.accuracies.accuracies[model].get(split, {}).get(task)
    return "-" if accuracy is None else text(accuracy)
