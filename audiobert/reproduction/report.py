"""The report of a reproduction, for a researcher to read: whether the audio helped first, then every table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..benchmark.dataset.statistics import PAPER_TABLE_I, SplitStatistics, Statistics
from ..evaluation.ceilings import CEILING_NOTE
from ..evaluation.clusters import OVER_CLUSTERS
from ..evaluation.comparison import Accuracy, interval_text
from ..evaluation.preservation import Preservation
from ..evaluation.sound_swap.answering import END_TO_END
from ..evaluation.sound_swap.answering import RANDOM as RANDOM_RECORDINGS
from ..evaluation.sound_swap.figures import SoundSwapReport
from ..files import whole_file
from ..reports.paper import PaperTable, paper_tables, published_models
from ..reports.tables import TextTable, percent
from .export import write_json
from .figures import write_figures
from .findings import Findings, OverSeeds, Results, find
from .presets import AUDIOBERT, LINEAR, NO_AUDIO
from .sound_swap import TRAINED_ON_BLIND, TRAINED_ON_RANDOM, TRAINED_WITHOUT_AUDIO
from .verdict import against_no_audio, control_line, swap_lines, verdict

SWAP_NOTE = (
    "Answers that follow the sound, in percent, mean ± standard deviation over training seeds, with 95 % intervals "
    "over labels. AudioBERT is asked as it is in use, end to end, and with random recordings in the place of those "
    "found; what was trained otherwise is called so, and asked as it was trained."
)
# Who stands beside AudioBERT in the short table.
_BESIDE = (
    RANDOM_RECORDINGS,
    TRAINED_WITHOUT_AUDIO,
    TRAINED_ON_RANDOM,
    TRAINED_ON_BLIND,
    LINEAR,
)
_SEED_NOTE = "Mean ± standard deviation over training seeds; no deviation for one seed."


def write_report(results: Results, out: Path) -> Path:
    """
    Writes `report.md`, `results.json` and `figures/` (PNG and SVG) into a folder.

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
    path = out / "report.md"
    with whole_file(path) as file:
        file.write(_markdown(results, findings, [figure.stem for figure in figures]))
    return path


def _markdown(results: Results, findings: Findings, figures: Sequence[str]) -> str:
    paper = paper_tables()
    parts = [
        "# Reproduction of AudioBERT's tables",
        *_try(results),
        *_verdict(findings, figures),
        *_sound_swap(findings),
        *_answers(findings, paper["III"], figures),
        *_strata(findings),
        *_detectors(findings, paper["II"], figures),
        *_preservation(results, findings, figures),
        *_statistics(results.statistics),
        *_human(results, paper["IV"]),
        "## Configuration",
        "What these results depend on:",
        f"```json\n{json.dumps(results.configuration, indent=2)}\n```",
        "Every figure in full precision is in `results.json`.",
    ]
    return "\n\n".join(parts) + "\n"


def _try(results: Results) -> list[str]:
    cut = results.configuration.get("cut")
    if cut is None:
        return []
    return [
        f"> **This is a try, and its figures mean nothing.** Every training ended after "
        f"{results.configuration['max_steps']} steps, and models are trained and evaluated on at most {cut['rows']} "
        f"rows of each task in each split, as many questions of each part of the sound swap, and {cut['passages']} "
        f"passages of plain English (pseudo-perplexity on "
        f"{cut['perplexity_passages']}). Table I alone is of the whole benchmark. For results leave `--max-steps` out, "
        "with another folder."
    ]


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
            "AudioBERT less the control, in points, with 95 % intervals of the paired bootstrap over instruments and "
            "onomatopoeia. `*`: it tells them apart, p ≤ 0.05 after Holm's correction over the columns of that "
            "control; over all controls together nothing is corrected.",
            *_picture("differences", "AudioBERT less each control", figures),
        ]
    return parts


def _sound_swap(findings: Findings) -> list[str]:
    if findings.swap is None:
        return []
    return [
        "## Does it hear? The sound swap",
        "Questions about recordings that no training has heard, most of them under names that mean nothing.",
        swap_table(findings.swap).to_markdown(),
        SWAP_NOTE,
        "\n".join(f"- {line}" for line in swap_lines(findings.swap)),
        "Two are told apart by the paired bootstrap over labels, p ≤ 0.05 after Holm's correction over the parts.",
        f"<details><summary>All listeners</summary>\n\n{findings.swap.to_markdown()}\n\n</details>",
    ]


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
        f"The first row is the ceiling. {CEILING_NOTE} A masked model is told by its masks how many word pieces the "
        "answer has, and can pass it.",
        f"Rows marked (paper) are Table {paper.number}{page}. {paper.note} Read in: {sources}.",
        *(
            f"{model.name} is the published state of the art, and no AudioBERT: {model.how}. Read in: {model.source}."
            for model in published_models()
        ),
        "### Set-valued accuracy",
        set_valued_table(findings).to_markdown(),
        "In percent, mean over training seeds: a row is right if any row with its sentence has the answer.",
        "### 95 % intervals",
        interval_table(findings).to_markdown(),
        f"{OVER_CLUSTERS} Where there are several seeds, seeds are drawn too.",
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
        "Accuracy in percent. A sentence, an answer or a span counts as seen if the training rows "
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
        return [heading, results.human.to_markdown(titled=True)]
    return [
        heading,
        "No sheets were given. `audiobert benchmark human-sheets` writes them; filled in by annotators, "
        "`audiobert reproduce` reads them from the folder that `--sheets` names.",
    ]


def _picture(name: str, description: str, figures: Sequence[str]) -> list[str]:
    return [f"![{description}](figures/{name}.png)"] if name in figures else []


# --- the tables, as text cells: ours and, where they are at hand, the paper's ----------------------------------------


def mean_and_sd(figure: OverSeeds | Accuracy, scale: float = 100) -> str:
    """ "36.91 ± 0.72"; without the deviation for one seed."""
    deviation = "" if figure.sd is None else f" ± {scale * figure.sd:.2f}"
    return f"{scale * figure.mean:.2f}{deviation}"


def accuracy_table(findings: Findings, paper: PaperTable) -> TextTable:
    """Table III: the ceiling, the models, and below them the paper's and the published state of the art."""
    columns = findings.columns
    ceilings = [percent(findings.ceiling(*column)) for column in columns]
    rows = [["ceiling, one answer per sentence", "-", *ceilings]]
    rows += [
        [model, _seeds_text(findings, model), *(_cell(findings, model, column, mean_and_sd) for column in columns)]
        for model in findings.models
    ]
    for model in paper.models:
        known = [paper.value(model, *column) for column in columns]
        rows.append([f"{model} (paper)", "-", *("-" if value is None else f"{value:.2f}" for value in known)])
    for published in published_models():
        cells = [published.accuracies.get(f"{task} {split}") for split, task in columns]
        rows.append([f"{published.name} (published)", "-", *("-" if cell is None else f"{cell:.2f}" for cell in cells)])
    return TextTable("Table III", ["model", "seeds", *_names(columns)], rows, names=1)


def swap_table(swap: SoundSwapReport) -> TextTable:
    """The sound swap in short: how often the answers of AudioBERT and of its controls follow the sound."""
    beside = [name for name in _BESIDE if any(name in listeners for listeners in swap.parts.values())]
    rows = []
    for part, listeners in swap.parts.items():
        questions = next(iter(listeners.values())).questions
        heard = listeners.get(END_TO_END)
        own = "-" if heard is None else f"{heard.sound_text} {interval_text(heard.interval)}"
        cells = [listeners[name].sound_text if name in listeners else "-" for name in beside]
        rows.append([part, f"{questions:,}", own, *cells])
    return TextTable("Sound swap", ["part", "questions", AUDIOBERT, *beside], rows, names=1)


def set_valued_table(findings: Findings) -> TextTable:
    """The accuracies of the same cells if a sentence may have any of its answers."""
    return _table_of_cells("Set-valued accuracy", findings, lambda part: percent(part.set_valued))


def interval_table(findings: Findings) -> TextTable:
    """The intervals of the accuracies, in the same cells."""
    return _table_of_cells("95 % intervals", findings, lambda part: interval_text(part.interval))


def _table_of_cells(title: str, findings: Findings, show: Callable[[Accuracy], str]) -> TextTable:
    columns = findings.columns
    rows = [[model, *(_cell(findings, model, column, show) for column in columns)] for model in findings.models]
    return TextTable(title, ["model", *_names(columns)], rows, names=1)


def difference_table(findings: Findings) -> TextTable:
    """AudioBERT less each of the others, in points, with intervals; `*` where the bootstrap tells them apart."""
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
    accuracy = findings.accuracy(model, *column)
    return "-" if accuracy is None else text(accuracy)
