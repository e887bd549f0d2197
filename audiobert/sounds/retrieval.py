"""Whether spans find what they speak of: retrieval's own figures, by hand-checked labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..csv_files import read_csv
from ..modeling.knowledge_audiobert import AudioBertKnowledgeBase
from ..modeling.knowledge_files_audiobert import RETRIEVALS
from ..modeling.labels_audiobert import spoken
from ..reports.tables import TableReport, TextTable, percent

# Spans of AuditoryBench's dev rows that no train row has, with the labels of recordings that would be right.
SPANS_FILE = Path(__file__).with_name("retrieval_spans.csv")


@dataclass(frozen=True)
class LabelledSpan:
    """A span, and the labels that a recording may have which is right for it."""

    span: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class RetrievalScore:
    """How often the first recording of a span was right.

    Attributes:
        retrieval: how recordings were found: "audio", "label" or "both".
        accuracy: the share of spans whose first recording bears a right label.
        found_by: for how many spans the first recording was found by its sound ("audio") and by its label ("label").
        right_by: for how many of each it was right.
    """

    retrieval: str
    accuracy: float
    found_by: dict[str, int]
    right_by: dict[str, int]


@dataclass(frozen=True)
class RetrievalReport(TableReport):
    """What `measure_retrieval` found.

    Attributes:
        scores: one for each way in which the knowledge base finds recordings.
        asked: spans that were asked for.
        left_out: spans of which no recording has a right label, so that nothing could be found.
        chance: the accuracy of recordings drawn at random.
    """

    scores: tuple[RetrievalScore, ...]
    asked: int
    left_out: tuple[str, ...]
    chance: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _table(self) -> TextTable:
        rows = [
            [score.retrieval, percent(score.accuracy), *(_share_right(score, way) for way in ("audio", "label"))]
            for score in self.scores
        ]
        note = f"Right label of a span's first recording, over {self.asked} spans; by chance {percent(self.chance)}."
        if self.left_out:
            note += f" {len(self.left_out)} spans left out, as no recording has a right label."
        if len(self.scores) == 1:
            note += " The knowledge base has no label vectors: by sound alone."
        header = ("retrieval", "right label", "found by sound (right)", "found by label (right)")
        return TextTable("Retrieval", header, rows, names=1, note=note)


def _share_right(score: RetrievalScore, way: str) -> str:
    return f"{score.found_by.get(way, 0)} ({score.right_by.get(way, 0)})"


def read_labelled_spans(path: Path = SPANS_FILE) -> list[LabelledSpan]:
    """
    Reads spans and their right labels, separated by semicolons, from a CSV file with the columns `span` and `labels`.

    Raises:
        OSError: there is no such file.
        ValueError: as `audiobert.csv_files.read_csv`, or a row has no span or no label, or the file no row.
    """
    spans = []
    for row in read_csv(path, ("span", "labels")):
        if row.misfit is not None:
            raise ValueError(f"{path}, line {row.line}: {row.misfit}.")
        labels = tuple(label.strip() for label in row.cells["labels"].split(";") if label.strip())
        if not row.cells["span"].strip() or not labels:
            raise ValueError(f"{path}, line {row.line}: a span and at least one label are needed.")
        spans.append(LabelledSpan(row.cells["span"].strip(), labels))
    if not spans:
        raise ValueError(f"{path} lists no span.")
    return spans


def measure_retrieval(
    knowledge_base: AudioBertKnowledgeBase, spans: Sequence[LabelledSpan] | None = None
) -> RetrievalReport:
    """
    Measures how often a span's first recording bears a right label, by each way in which the knowledge base finds any.

    Args:
        knowledge_base: where to look.
        spans: what to look for; those of `retrieval_spans.csv` if omitted: of AuditoryBench's dev rows, none of them in
            a train row, with labels checked by hand.

    Raises:
        ValueError: no recording has a label that is right for any of the spans.
    """
    labels = [_plain(knowledge_base.recording(row).label) for row in range(len(knowledge_base))]
    counts = Counter(labels)
    given = read_labelled_spans() if spans is None else spans
    right = {asked.span: {_plain(label) for label in asked.labels} & counts.keys() for asked in given}
    possible = [span for span, names in right.items() if names]
    if not possible:
        raise ValueError("No recording has a label that is right for any of the spans: give spans of your own.")
    ways = RETRIEVALS if knowledge_base.label_vectors is not None else ("audio",)
    scores = []
    for way in ways:
        found_by: Counter[str] = Counter()
        right_by: Counter[str] = Counter()
        for span, found in zip(possible, knowledge_base.search(possible, retrieval=way), strict=True):
            first = str(found.recordings[0].found_by)
            found_by[first] += 1
            right_by[first] += labels[found.indices[0]] in right[span]
        accuracy = right_by.total() / len(possible)
        scores.append(RetrievalScore(way, accuracy, dict(found_by), dict(right_by)))
    chances = [sum(counts[name] for name in right[span]) / len(labels) for span in possible]
    left_out = tuple(span for span, names in right.items() if not names)
    return RetrievalReport(tuple(scores), len(possible), left_out, sum(chances) / len(chances))


def _plain(label: str) -> str:
    return spoken(label).casefold()
