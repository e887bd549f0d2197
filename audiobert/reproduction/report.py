"""The report of a reproduction, for a researcher to read: whether the audio helped first, then every table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..benchmark.dataset.statistics import PAPER_TABLE_I, Statistics
from ..files import whole_file
from ..reports.paper import PaperTable, paper_tables
from .export import write_csv, write_json
from .figures import write_figures
from .findings import Findings, find
from .results import AUDIOBERT, NO_AUDIO, Results
from .sections import (
    accuracy_table,
    alarm_table,
    detector_table,
    difference_table,
    identity_table,
    interval_table,
    perplexity_table,
    statistics_table,
)
from .verdict import against_no_audio, control_line, verdict

_SEED_NOTE = "Mean ± standard deviation over training seeds; no deviation for one seed."


def write_report(results: Results, out: Path) -> Path:
    """
    Writes `report.md`, `results.json`, `results.csv` and `figures/` (PNG and SVG) into a folder.

    What was not run is left out, with a line that says so. The same results give the same bytes.

    Args:
        results: of all runs there are.
        out: the folder, made if need be; files of an earlier report are replaced.

    Returns:
        The path of the report.

    Raises:
        ValueError: a model has two results of one seed, or models answered different rows.
    """
    findings = find(results)
    out.mkdir(parents=True, exist_ok=True)
    figures = write_figures(findings, out / "figures")
    write_json(results, findings, out / "results.json")
    write_csv(results, findings, out / "results.csv")
    path = out / "report.md"
    with whole_file(path) as file:
        file.write(_markdown(results, findings, [figure.stem for figure in figures]))
    return path


def _markdown(results: Results, findings: Findings, figures: Sequence[str]) -> str:
    paper = paper_tables()
    parts = [
        "# Reproduction of AudioBERT's tables",
        *_verdict(findings, figures),
        *_answers(findings, paper["III"], figures),
        *_strata(findings),
        *_detectors(findings, paper["II"], figures),
        *_preservation(results, findings, figures),
        *_statistics(results.statistics),
        *_human(results, paper["IV"]),
        "## Configuration",
        "What these results depend on:",
        f"```json\n{json.dumps(results.configuration, indent=2)}\n```",
        "Every figure in full precision is in `results.json`, and in `results.csv` a line for each.",
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(findings: Findings, figures: Sequence[str]) -> list[str]:
    parts = ["## Did the audio help?", *verdict(findings)]
    if NO_AUDIO in findings.comparisons:
        parts += [
            findings.comparisons[NO_AUDIO].to_markdown(),
            "Accuracy in percent, mean ± standard deviation over seeds; p after Holm's correction.",
        ]
    for model, comparison in findings.other_sizes.items():
        parts += [f"### {model}", *against_no_audio(comparison), comparison.to_markdown()]
    if findings.comparisons:
        parts += [
            "### Against each control",
            "\n".join(f"- {control_line(control, findings)}" for control in findings.comparisons),
            difference_table(findings).to_markdown(),
            "AudioBERT less the control, in points, with 95 % intervals of the paired bootstrap. `*`: both tests tell "
            "them apart, corrected over the columns of that control; over all controls together nothing is corrected.",
            *_picture("differences", "AudioBERT less each control", figures),
        ]
    return parts


def _answers(findings: Findings, paper: PaperTable, figures: Sequence[str]) -> list[str]:
    parts = ["## Table III: accuracy on AuditoryBench"]
    if findings.accuracies is None:
        return [*parts, "No model has been evaluated yet."]
    page = "" if paper.page is None else f", page {paper.page}"
    sources = "; ".join(dict.fromkeys(figure.source for figure in paper.figures))
    return [
        *parts,
        accuracy_table(findings, paper).to_markdown(),
        f"In percent. {_SEED_NOTE} `-` under seeds: trained with none.{_fewer_seeds(findings)}",
        f"Rows marked (paper) are Table {paper.number}{page}. {paper.note} Read in: {sources}.",
        "### 95 % intervals",
        interval_table(findings).to_markdown(),
        "Bootstrap over rows and, where there are several, over seeds.",
        *_picture("accuracy", "Accuracy of every model with 95 % intervals", figures),
    ]


def _fewer_seeds(findings: Findings) -> str:
    most = max(findings.seeds.values())
    fewer = [f"{model} ({seeds})" for model, seeds in findings.seeds.items() if 0 < seeds < most]
    return f" Fewer seeds than the {most} of others: {', '.join(fewer)}." if fewer else ""


def _strata(findings: Findings) -> list[str]:
    heading = "## Where the training texts tell the answer, and where not"
    if findings.strata is None:
        return [heading, f"Needs answers of {AUDIOBERT} or of {NO_AUDIO}, and the train split."]
    return [
        heading,
        # Long, and GitHub and the Hub fold it.
        f"<details><summary>{len(findings.strata.strata)} kinds of rows</summary>\n\n"
        f"{findings.strata.to_markdown()}\n\n</details>",
        "Accuracy in percent with 95 % intervals. A sentence, an answer or a span counts as seen if the training rows "
        "of its task have it, whatever its case and punctuation; similarity is that of what AudioBERT retrieved to the "
        "span, the mean over spans and seeds, in quarters of each task's rows.",
    ]


def _detectors(findings: Findings, paper: PaperTable, figures: Sequence[str]) -> list[str]:
    parts = [f"## Table II: the span detector\n\n{paper.note}"]
    if findings.detectors:
        parts += [
            detector_table(findings).to_markdown(),
            f"In percent, over rows all of whose spans are in their sentence. {_SEED_NOTE} Token F1 is of the tokens "
            "of spans, exact F1 of spans with both ends right.",
            *_picture("detectors", "F1 of the detectors", figures),
        ]
    else:
        parts.append("No detector has been evaluated yet.")
    if findings.alarms:
        parts += ["### False alarms on plain English", alarm_table(findings).to_markdown(), _SEED_NOTE]
    else:
        parts.append("False alarms on plain English have not been counted; they need WikiText.")
    return parts


def _preservation(results: Results, findings: Findings, figures: Sequence[str]) -> list[str]:
    heading = "## Preservation: plain English"
    if not results.preservation:
        return [heading, "Not measured yet; it needs WikiText and a trained AudioBERT."]
    return [
        heading,
        identity_table(results.preservation).to_markdown(),
        "Identical: where nothing is heard, logits equal those of the BERT that it started from, bit for bit.",
        perplexity_table(findings).to_markdown(),
        f"Pseudo-perplexity: each token masked in turn; lower is better. {_SEED_NOTE} Between the last two lines "
        "stands what the switch saves.",
        *_picture("perplexity", "Pseudo-perplexity on plain English", figures),
    ]


def _statistics(statistics: Statistics | None) -> list[str]:
    heading = "## Table I: size of the benchmark"
    if statistics is None:
        return [heading, "Not counted yet."]
    differing = [
        f"{task} {split}"
        for task, by_split in statistics.tasks.items()
        for split, ours in by_split.items()
        if ours != PAPER_TABLE_I[task][split]
    ]
    same = f"Differs from the paper in: {', '.join(differing)}." if differing else "All figures are the paper's."
    return [heading, statistics_table(statistics).to_markdown(), f"The paper's are on its page 2. {same}"]


def _human(results: Results, paper: PaperTable) -> list[str]:
    heading = f"## Table IV: human evaluation\n\n{paper.note}"
    if results.human is not None:
        return [heading, results.human.to_markdown()]
    return [
        heading,
        "No sheets were given. `audiobert benchmark human-sheets` writes them; filled in by annotators, "
        "`audiobert reproduce` reads them from the folder that `--sheets` names.",
    ]


def _picture(name: str, description: str, figures: Sequence[str]) -> list[str]:
    return [f"![{description}](figures/{name}.png)"] if name in figures else []
