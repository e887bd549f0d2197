"""All figures of a reproduction for other programs: `results.json` and `results.csv`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..benchmark.dataset.statistics import PAPER_TABLE_I
from ..files import whole_file
from ..reports.paper import paper_tables
from .findings import Findings, OverSeeds
from .results import AUDIOBERT, Results
from .verdict import verdict

CSV_HEADER = ("table", "model", "trained_on", "seed", "split", "task", "metric", "value")


def write_json(results: Results, findings: Findings, path: Path) -> None:
    """Everything, not rounded: shares from 0 to 1 (the paper's own figures in percent, as printed); null if not run."""
    everything = {
        "configuration": results.configuration,
        "verdict": verdict(findings),
        "table_1": results.statistics and results.statistics.to_dict(),
        "table_2": {
            "detectors": [asdict(found) for found in findings.detectors],
            "false_alarms": [asdict(found) for found in findings.alarms],
            "detectors_by_seed": [asdict(scores) for scores in results.detectors],
            "false_alarms_by_seed": [asdict(alarms) for alarms in results.alarms],
        },
        "table_3": {
            "seeds": findings.seeds,
            "accuracies": findings.accuracies and findings.accuracies.to_dict(),
            "audio_against": {name: comparison.to_dict() for name, comparison in findings.comparisons.items()},
            "other_sizes_against_no_audio": {name: found.to_dict() for name, found in findings.other_sizes.items()},
            "strata": findings.strata and findings.strata.to_dict(),
        },
        "preservation": {
            "pseudo_perplexity": {mode: asdict(figure) for mode, figure in findings.perplexities.items()},
            "by_seed": {str(seed): measured.to_dict() for seed, measured in results.preservation.items()},
        },
        "table_4": results.human and results.human.to_dict(),
        "paper": {number: asdict(table) for number, table in paper_tables().items()},
    }
    with whole_file(path) as file:
        file.write(json.dumps(everything, indent=2) + "\n")


def write_csv(results: Results, findings: Findings, path: Path) -> None:
    """
    A line for each figure, with the columns of `CSV_HEADER`; cells that do not apply are empty.

    Metrics named "mean", "sd", "low" and "high" are over seeds, so their cell for the seed is empty. Shares are from 0
    to 1, the paper's too. Models of the paper have "(paper)" after their name.
    """
    with whole_file(path) as file:
        table = csv.DictWriter(file, CSV_HEADER, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(_lines(results, findings))


def _lines(results: Results, findings: Findings) -> Iterator[dict[str, Any]]:
    yield from _sizes(results)
    yield from _detectors(results, findings)
    yield from _answers(results, findings)
    yield from _comparisons(findings)
    for seed, measured in results.preservation.items():
        for mode, perplexity in measured.pseudo_perplexity.items():
            cells = {"table": "preservation", "model": mode, "seed": seed}
            yield {**cells, "metric": "pseudo-perplexity", "value": perplexity.value}
    for mode, figure in findings.perplexities.items():
        yield from _over_seeds({"table": "preservation", "model": mode}, "pseudo-perplexity", figure)
    for task, figures in results.human.tasks.items() if results.human else ():
        for question, figure in (("accuracy", figures.accuracy), ("fluency", figures.fluency)):
            for metric, value in ((f"{question} mean", figure.mean), (f"{question} alpha", figure.alpha)):
                if value is not None:
                    yield {"table": "4", "task": task, "metric": metric, "value": value}


def _sizes(results: Results) -> Iterator[dict[str, Any]]:
    ours = results.statistics.tasks if results.statistics else {}
    for model, tasks in (("", ours), ("(paper)", PAPER_TABLE_I if ours else {})):
        for task, by_split in tasks.items():
            for split, counted in by_split.items():
                cells = {"table": "1", "model": model, "split": split, "task": task}
                yield {**cells, "metric": "captions", "value": counted.captions}
                yield {**cells, "metric": "total tokens", "value": counted.total_tokens}


def _detectors(results: Results, findings: Findings) -> Iterator[dict[str, Any]]:
    for scores in results.detectors:
        cells = {"table": "2", "trained_on": scores.trained_on, "seed": scores.seed}
        cells |= {"split": scores.split, "task": scores.task}
        yield {**cells, "metric": "token F1", "value": scores.token_f1}
        yield {**cells, "metric": "exact F1", "value": scores.exact_f1}
    for one in results.alarms:
        cells = {"table": "2", "trained_on": one.trained_on, "seed": one.seed}
        yield {**cells, "metric": "false alarms per 1,000 words", "value": one.alarms.per_1000_words}
    for found in findings.detectors:
        cells = {"table": "2", "trained_on": found.trained_on, "split": found.split, "task": found.task}
        yield from _over_seeds(cells, "token F1", found.token_f1)
        yield from _over_seeds(cells, "exact F1", found.exact_f1)
    for alarm in findings.alarms:
        cells = {"table": "2", "trained_on": alarm.trained_on}
        yield from _over_seeds(cells, "false alarms per 1,000 words", alarm.per_1000_words)


def _answers(results: Results, findings: Findings) -> Iterator[dict[str, Any]]:
    for given in results.answers:
        outcomes: dict[tuple[str, str], list[bool]] = {}
        for row in given.rows:
            outcomes.setdefault((row.split, row.task), []).append(row.correct)
        seed = "" if given.seed is None else given.seed
        for (split, task), right in outcomes.items():
            cells = {"table": "3", "model": given.model, "seed": seed, "split": split, "task": task}
            yield {**cells, "metric": "accuracy", "value": sum(right) / len(right)}
    for model, by_split in findings.accuracies.accuracies.items() if findings.accuracies else ():
        for split, by_task in by_split.items():
            for task, accuracy in by_task.items():
                cells = {"table": "3", "model": model, "split": split, "task": task}
                yield {**cells, "metric": "accuracy mean", "value": accuracy.mean}
                if accuracy.sd is not None:
                    yield {**cells, "metric": "accuracy sd", "value": accuracy.sd}
                yield {**cells, "metric": "accuracy low", "value": accuracy.interval.low}
                yield {**cells, "metric": "accuracy high", "value": accuracy.interval.high}
    for figure in paper_tables()["III"].figures if findings.accuracies else ():
        cells = {"table": "3", "model": f"{figure.model} (paper)", "split": figure.split, "task": figure.task}
        yield {**cells, "metric": "accuracy", "value": figure.value / 100}


def _comparisons(findings: Findings) -> Iterator[dict[str, Any]]:
    for control, comparison in findings.comparisons.items():
        for column in comparison.columns:
            cells = {"table": "3", "model": f"{AUDIOBERT} less {control}", "split": column.split, "task": column.task}
            values = {
                "difference": column.difference,
                "difference low": column.interval.low,
                "difference high": column.interval.high,
                "McNemar p": column.mcnemar_p,
                "McNemar p, Holm": column.mcnemar_p_holm,
                "bootstrap p": column.bootstrap_p,
                "bootstrap p, Holm": column.bootstrap_p_holm,
            }
            yield from ({**cells, "metric": metric, "value": value} for metric, value in values.items())


def _over_seeds(cells: dict[str, Any], metric: str, figure: OverSeeds) -> Iterator[dict[str, Any]]:
    yield {**cells, "metric": f"{metric} mean", "value": figure.mean}
    if figure.sd is not None:
        yield {**cells, "metric": f"{metric} sd", "value": figure.sd}
