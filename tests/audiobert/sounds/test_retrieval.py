"""Retrieval's own figures: how often a span finds a recording with a right label, and by what."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from audiobert.cli import app
from audiobert.modeling.knowledge_audiobert import Recording
from audiobert.sounds.retrieval import LabelledSpan, measure_retrieval, read_labelled_spans

from audio_fixtures import named_knowledge_base, tiny_knowledge_base

SPANS = [LabelledSpan("dog", ("hound", "Dog")), LabelledSpan("meow", ("cat",)), LabelledSpan("hum", ("bee",))]


def test_the_share_of_spans_whose_first_recording_bears_a_right_label() -> None:
    named = named_knowledge_base()
    # It sounds just like the text that asks for meows, and is no cat.
    purring = Recording("purr.ogg", "rain", "tests", "CC0", 1.0)
    named = named.with_recordings(named.query_encoder("meow sound"), torch.zeros(1, 6), [purring])
    report = measure_retrieval(named, SPANS)
    assert (report.asked, report.left_out) == (2, ("hum",))
    assert report.chance == pytest.approx(4 / 13)
    by_sound, by_label, by_both = report.scores
    first = named.search(["dog"], retrieval="audio")[0].recordings[0]
    assert (by_sound.retrieval, by_sound.accuracy) == ("audio", (first.label == "dog") / 2)
    assert by_sound.found_by == {"audio": 2}
    assert by_label.right_by["label"] >= 1
    assert (by_both.accuracy, by_both.found_by) == (0.5, {"label": 1, "audio": 1})
    assert by_both.right_by == {"label": 1, "audio": 0}
    assert "1 spans left out" in report.to_markdown()


def test_without_label_vectors_it_is_measured_by_sound_alone() -> None:
    report = measure_retrieval(tiny_knowledge_base(), SPANS)
    assert [score.retrieval for score in report.scores] == ["audio"]
    assert "no label vectors" in report.to_markdown()
    with pytest.raises(ValueError, match="No recording has a label that is right"):
        measure_retrieval(tiny_knowledge_base(), SPANS[2:])


def test_the_command(tmp_path: Path) -> None:
    named_knowledge_base().save_pretrained(tmp_path / "model" / "knowledge_base")
    spans = tmp_path / "spans.csv"
    spans.write_text("span,labels\ndog,hound; dog\nmeow,cat\n")
    figures = []
    for place in ("model", "model/knowledge_base"):
        command = ["evaluate-retrieval", str(tmp_path / place), "--spans", str(spans), "--format", "json"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        figures.append(json.loads(result.stdout))
    assert figures[0] == figures[1]
    assert [score["retrieval"] for score in figures[0]["scores"]] == ["audio", "label", "both"]
    spans.write_text("span,labels\ndog,\n")
    result = CliRunner().invoke(app, ["evaluate-retrieval", str(tmp_path / "model"), "--spans", str(spans)])
    assert result.exit_code == 1
    assert "line 2: a span and at least one label" in result.stderr


def test_the_list_that_travels_with_the_package_names_each_span_once() -> None:
    spans = [asked.span for asked in read_labelled_spans()]
    assert len(spans) == len(set(spans)) > 50


@pytest.mark.real_data
def test_its_spans_are_of_the_dev_rows_alone_and_its_labels_those_of_recordings() -> None:
    if not {"AUDITORYBENCH_DIR", "SOUNDS_DIR", "AUDIO_DIR"} <= os.environ.keys():
        pytest.skip("needs AUDITORYBENCH_DIR, SOUNDS_DIR and AUDIO_DIR")

    def column(path: Path, *names: str) -> set[str]:
        with open(path, newline="", encoding="utf-8") as file:
            return {row[name].strip().casefold() for row in csv.DictReader(file) for name in names}

    def spans(split: str) -> set[str]:
        folder = Path(os.environ["AUDITORYBENCH_DIR"])
        pitch = column(folder / f"pitch_{split}.csv", "span1", "span2")
        return pitch | column(folder / f"animal_{split}.csv", "description")

    folders = (Path(os.environ["SOUNDS_DIR"]), Path(os.environ["AUDIO_DIR"]))
    labels = set().union(*(column(folder / "metadata.csv", "label") for folder in folders))
    dev, train = spans("dev"), spans("train")
    for asked in read_labelled_spans():
        assert asked.span.casefold() in dev - train
        assert set(asked.labels) <= labels
