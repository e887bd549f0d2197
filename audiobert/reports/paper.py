"""Published figures, kept as data (`paper_tables.json`): the paper's own, what is known of each table, and others'."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class PaperFigure:
    """One figure of the paper, as it is printed.

    Attributes:
        model, split, task: its row and column, tasks by this package's names: animal, pitch or combined.
        value: in the unit of its table.
        source: where it was read.
    """

    model: str
    split: str
    task: str
    value: float
    source: str


@dataclass(frozen=True)
class PaperTable:
    """What is known of one table of the paper.

    Attributes:
        number: in Roman figures.
        title: what it is of, in words of ours.
        page: None if it is not known.
        note: what is to be said beside it.
        figures: those at hand; none for a table of which there are none.
    """

    number: str
    title: str
    page: int | None
    note: str
    figures: tuple[PaperFigure, ...]

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(figure.model for figure in self.figures))

    def value(self, model: str, split: str, task: str) -> float | None:
        """One figure; None if it is not at hand."""
        found = (f.value for f in self.figures if (f.model, f.split, f.task) == (model, split, task))
        return next(found, None)


@dataclass(frozen=True)
class PublishedModel:
    """What others have published on AuditoryBench.

    Attributes:
        name: as it is published.
        how: what it is and hears, as far as it is not an AudioBERT's.
        source: where the figures were read.
        accuracies: in percent, by column, such as "animal dev".
    """

    name: str
    how: str
    source: str
    accuracies: dict[str, float]


@cache
def published_models() -> tuple[PublishedModel, ...]:
    """The published state of the art, to be shown beside ours: no AudioBERT, and not trained by us."""
    known = json.loads((files(__package__) / "paper_tables.json").read_text(encoding="utf-8"))
    sources = known["sources"]
    return tuple(PublishedModel(**{**model, "source": sources[model["source"]]}) for model in known["published"])


@cache
def paper_tables() -> dict[str, PaperTable]:
    """Tables I to IV by number. The figures of Table I are `audiobert.benchmark.dataset.statistics.PAPER_TABLE_I`."""
    known = json.loads((files(__package__) / "paper_tables.json").read_text(encoding="utf-8"))
    sources = known["sources"]
    return {
        number: PaperTable(
            number=number,
            title=table["title"],
            page=table["page"],
            note=table["note"],
            figures=tuple(
                PaperFigure(**{**figure, "source": sources[figure["source"]]}) for figure in table["figures"] or ()
            ),
        )
        for number, table in known["tables"].items()
    }
