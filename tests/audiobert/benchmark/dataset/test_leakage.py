"""What later splits have in common with train."""

from __future__ import annotations

import json
import os
import re

import pytest

from audiobert.benchmark.dataset.leakage import Overlap, leakage
from audiobert.benchmark.dataset.publication import read_dataset
from audiobert.benchmark.dataset.splitting import split_rows

from text_fixtures import write_auditorybench


def row(sentence, answer, span="meow", recordings=(), task="animal"):
    return {"task": task, "sentence": sentence, "answer": answer, "spans": [span], "recordings": list(recordings)}


TRAIN = [row("A [MASK] meows.", "cat", "meow", ["1", "2"]), row("The [MASK] barks.", "dog", "bark", ["3"])]


def overlap(*rows, train=TRAIN) -> Overlap:
    return leakage({"train": train, "test": rows}).tasks["animal"]["test"]


def test_each_share_counts_its_own():
    found = overlap(
        row("A [MASK] meows.", "cat", "purr", ["9"]),
        row("A [MASK] meows.", "dog", "purr", ["9"]),
        row("a [MASK] meows", "Cat", "purr", ["9"]),
        row("New [MASK].", "lion", "Bark!", ["9"]),
        row("New [MASK].", "lion", "purr", ["9", "3"]),
    )
    assert found == Overlap(
        rows=5,
        sentence=0.4,
        sentence_and_answer=0.2,
        alike_sentence=0.6,
        alike_sentence_and_answer=0.4,
        answer=0.6,
        spans=0.2,
        recording=0.2,
    )


def test_sentence_and_answer_are_of_one_row():
    assert overlap(row("The [MASK] barks.", "cat")).sentence_and_answer == 0


def test_tasks_are_compared_by_themselves():
    report = leakage({"train": TRAIN, "wiki": [{**TRAIN[0], "task": "pitch"}]})
    assert report.tasks["pitch"]["wiki"].sentence == 0
    assert report.tasks["animal"]["wiki"] == Overlap(0, *[None] * 7)


def test_unknown_recordings_are_not_called_disjoint(tmp_path):
    assert overlap({**TRAIN[0], "recordings": None}).recording is None
    assert overlap(row("A [MASK].", "cat")).recording == 0
    published = leakage(read_dataset(write_auditorybench(tmp_path)))
    assert published.tasks["pitch"]["dev"] == Overlap(2, *[1.0] * 6, None)


def test_json_and_tables(tmp_path):
    report = leakage({"train": TRAIN, "test": [row("A [MASK] meows.", "dog"), row("[MASK]", "x"), row("[MASK]", "y")]})
    assert json.loads(report.to_json())["animal"]["test"]["sentence"] == pytest.approx(1 / 3)
    assert json.loads(report.to_json())["pitch"]["test"]["sentence"] is None
    line = "| animal | test | 3 | 33.33 | 0.00 | 33.33 | 0.00 | 33.33 | 100.00 | 0.00 |"
    assert line in report.to_markdown().splitlines()
    assert [column.header for column in report.to_table().columns][:4] == ["task", "split", "rows", "sentence"]
    assert re.search(r"100\.00", "".join(map(str, report.to_table().columns[8].cells)))


def test_train_is_needed():
    with pytest.raises(ValueError, match="no split train to compare with; the splits are dev, test"):
        leakage({"dev": [], "test": []})


def test_a_grouped_split_leaks_no_sentence_and_no_recording():
    rows = [row(f"Sound {i % 30} of a [MASK]{'!' * (i % 2)}", f"a{i}", recordings=[str(i % 40)]) for i in range(200)]
    rows += [row(f"Other {i} [MASK]", "cat", recordings=[f"o{i}"]) for i in range(400)]
    grouped = leakage(split_rows(rows, seed=0)).tasks["animal"]["test"]
    assert (grouped.sentence, grouped.alike_sentence, grouped.recording) == (0, 0, 0)
    plain = leakage(split_rows(rows, seed=0, grouped=False)).tasks["animal"]["test"]
    assert plain.sentence > 0.1 and plain.recording > 0.1


@pytest.mark.real_data
@pytest.mark.skipif("AUDITORYBENCH_DIR" not in os.environ, reason="AUDITORYBENCH_DIR is not set to the real CSV files")
def test_the_published_data_has_animal_test_sentences_in_train():
    report = leakage(read_dataset(os.environ["AUDITORYBENCH_DIR"])).tasks
    test = report["animal"]["test"]
    # Character by character: 376 and 58 of 1,211.
    assert (round(100 * test.sentence), round(100 * test.sentence_and_answer)) == (31, 5)
    assert (test.sentence * test.rows, test.sentence_and_answer * test.rows) == pytest.approx((376, 58))
    assert report["pitch"]["test"].sentence < 0.03
    assert test.recording is None
