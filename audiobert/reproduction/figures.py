"""The figures of a report: PNG to look at in a README, SVG for papers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..reports.paper import paper_tables
from .findings import Findings, OverSeeds
from .presets import AUDIOBERT, NO_AUDIO

# Okabe and Ito's colours, which the colour-blind can tell apart.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
_WIDTH = 10.0
# What would make the same results give other bytes: random ids and dates.
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "audiobert",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write_figures(findings: Findings, folder: Path) -> list[Path]:
    """
    Draws what there is of: accuracy (`accuracy`), AudioBERT less its controls (`differences`), the detectors
    (`detectors`) and pseudo-perplexity (`perplexity`).

    Returns:
        The PNG files; beside each is an SVG of the same name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **_STYLE}):
        drawn = {
            "accuracy": _accuracy(findings) if findings.accuracies else None,
            "differences": _differences(findings) if findings.comparisons else None,
            "detectors": _detectors(findings) if findings.detectors else None,
            "perplexity": _perplexity(findings) if findings.perplexities else None,
        }
        return [_save(figure, folder / f"{name}.png") for name, figure in drawn.items() if figure is not None]


def _save(figure: Figure, path: Path) -> Path:
    for target, metadata in ((path, {"Software": None}), (path.with_suffix(".svg"), {"Date": None, "Creator": None})):
        unfinished = target.with_name(f"{target.name}.unfinished")
        figure.savefig(unfinished, format=target.suffix[1:], dpi=130, metadata=metadata)
        os.replace(unfinished, target)
    return path


def _panels(
    rows: int, columns: int, height: float, sharex: Literal["none", "row"] = "none"
) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=True).tolist()


def _grid(columns: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Tasks, one per row of panels, and splits, one per column."""
    return list(dict.fromkeys(task for _, task in columns)), list(dict.fromkeys(split for split, _ in columns))


def _accuracy(findings: Findings) -> Figure:
    tasks, splits = _grid(findings.columns)
    models = findings.models[::-1]
    figure, panels = _panels(len(tasks), len(splits), 0.5 + len(tasks) * (0.8 + 0.2 * len(models)), sharex="row")
    paper = paper_tables()["III"]
    for task, line in zip(tasks, panels, strict=True):
        for split, axes in zip(splits, line, strict=True):
            for height, model in enumerate(models):
                accuracy = findings.accuracy(model, split, task)
                if accuracy is not None:
                    _dot(axes, height, accuracy.mean, accuracy.interval, _colour(model))
            theirs = paper.value("AudioBERT-large", split, task)
            if theirs is not None:
                axes.axvline(theirs, color=_GREY, linestyle="--", linewidth=0.9)
            ceiling = findings.ceiling(split, task)
            # A line at 100 would say nothing, and push all dots aside.
            if ceiling is not None and ceiling < 1:
                axes.axvline(100 * ceiling, color=_GREY, linestyle=":", linewidth=0.9)
            _name_heights(axes, models)
            axes.set_title(f"{task}, {split}")
    figure.supxlabel(
        "accuracy, %, with 95 % intervals over instruments and onomatopoeia;\n"
        "dashed: AudioBERT-large in the paper; dotted: ceiling below 100"
    )
    return figure


def _differences(findings: Findings) -> Figure:
    columns = [(column.split, column.task) for column in next(iter(findings.comparisons.values())).columns]
    tasks, splits = _grid(columns)
    controls = list(findings.comparisons)[::-1]
    figure, panels = _panels(len(tasks), len(splits), 0.5 + len(tasks) * (0.8 + 0.2 * len(controls)), sharex="row")
    for task, line in zip(tasks, panels, strict=True):
        for split, axes in zip(splits, line, strict=True):
            axes.axvline(0, color="black", linewidth=0.8)
            for height, control in enumerate(controls):
                told = findings.significant(control, True) + findings.significant(control, False)
                for column in findings.comparisons[control].columns:
                    if (column.split, column.task) == (split, task):
                        colour = _ORANGE if control == NO_AUDIO else _BLUE
                        filled = f"{task} {split}" in told
                        _dot(axes, height, column.difference, column.interval, colour, filled)
            _name_heights(axes, controls)
            axes.set_title(f"{task}, {split}")
    figure.supxlabel(
        "AudioBERT less the control, points, with 95 % intervals over instruments and onomatopoeia;\n"
        "right of 0 it is better; filled: told apart"
    )
    return figure


def _dot(
    axes: Axes, height: int, value: float, interval: tuple[float, float], colour: str, filled: bool = True
) -> None:
    axes.plot([100 * end for end in interval], [height, height], color=colour, linewidth=1.4)
    face = colour if filled else "white"
    axes.plot([100 * value], [height], "o", color=colour, markerfacecolor=face, markersize=5)


def _name_heights(axes: Axes, names: list[str] | tuple[str, ...]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _colour(model: str) -> str:
    return {AUDIOBERT: _BLUE, NO_AUDIO: _ORANGE}.get(model, _GREY)


def _detectors(findings: Findings) -> Figure:
    splits = list(dict.fromkeys(found.split for found in findings.detectors))
    tasks = list(dict.fromkeys(found.task for found in findings.detectors))
    trained = list(dict.fromkeys(found.trained_on for found in findings.detectors))
    width = 0.8 / len(trained)
    figure, panels = _panels(2, len(splits), 5.0)
    scores = (("token_f1", "token F1, %"), ("exact_f1", "exact-span F1, %"))
    for (score, label), line in zip(scores, panels, strict=True):
        line[0].set_ylabel(label)
        for split, axes in zip(splits, line, strict=True):
            for found in findings.detectors:
                if found.split == split:
                    number = trained.index(found.trained_on)
                    place = tasks.index(found.task) + width * (number - (len(trained) - 1) / 2)
                    colour = (_ORANGE, _GREEN, _BLUE)[number % 3]
                    _bar(axes, place, getattr(found, score), 100, 0.9 * width, colour)
            axes.set_xticks(range(len(tasks)), tasks)
            axes.set_ylim(0, 105)
            axes.set_title(split)
    colours = [matplotlib.patches.Patch(color=(_ORANGE, _GREEN, _BLUE)[number % 3]) for number in range(len(trained))]
    names = [f"trained on {name}" for name in trained]
    figure.legend(colours, names, loc="outside lower center", ncols=len(trained), frameon=False)
    return figure


def _perplexity(findings: Findings) -> Figure:
    figure, ((axes,),) = _panels(1, 1, 3.2)
    for place, figure_of_mode in enumerate(findings.perplexities.values()):
        _bar(axes, place, figure_of_mode, 1, 0.6, _BLUE)
        axes.annotate(
            f"{figure_of_mode.mean:.2f}",
            (place, figure_of_mode.mean + (figure_of_mode.sd or 0)),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
        )
    axes.margins(y=0.12)
    axes.set_xticks(range(len(findings.perplexities)), list(findings.perplexities))
    axes.set_ylabel("pseudo-perplexity, lower is better")
    return figure


def _bar(axes: Axes, place: float, figure: OverSeeds, scale: float, width: float, colour: str) -> None:
    deviation = None if figure.sd is None else scale * figure.sd
    axes.bar(place, scale * figure.mean, width=width, color=colour, yerr=deviation, capsize=2, ecolor="black")
