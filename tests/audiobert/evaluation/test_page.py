"""The page on a whole evaluation, against counts made by hand."""

import json
import re

import pytest

from audiobert.evaluation.page import AnswerChange, answer_changes, confusion, outcome, write_evaluation_page
from audiobert.evaluation.predictions import RowPrediction


def row(number: int, answer: str, predicted: str, correct: bool, split: str = "dev", task: str = "animal"):
    return RowPrediction(split, task, number, f"{number} </script> [MASK]", answer, ("span",), predicted, correct)


WITHOUT = [
    row(0, "cat", "dog", False),
    row(1, "Cat", "dog", False),
    row(2, "dog", "dog", True),
    row(3, "dog", "dog", True),
    row(4, "cow", "bat", False),
    row(5, "cow", "bat", False),
    row(0, "lower", "higher", False, task="pitch"),
]
WITH = [
    row(0, "cat", "cat", True),
    row(1, "Cat", "cats", True),
    row(2, "dog", "cat", False),
    row(3, "dog", "dog", True),
    row(4, "cow", "CAT", False),
    row(5, "cow", "bat", False),
    row(0, "lower", "lower", True, task="pitch"),
]


def test_outcomes():
    assert [outcome(*pair) for pair in zip(WITHOUT, WITH, strict=True)] == [
        *("helped", "helped", "harmed", "both right", "wrong otherwise", "wrong alike", "helped")
    ]


def test_answers_that_gained_come_first_and_those_that_lost_last():
    assert answer_changes(WITH, WITHOUT) == [
        AnswerChange("animal", "dev", "cat", rows=2, right_without=0, right_with=2),
        AnswerChange("pitch", "dev", "lower", rows=1, right_without=0, right_with=1),
        AnswerChange("animal", "dev", "cow", rows=2, right_without=0, right_with=0),
        AnswerChange("animal", "dev", "dog", rows=2, right_without=2, right_with=1),
    ]


def test_confusion_counts_right_answers_on_the_diagonal_however_they_are_spelt():
    result = confusion(WITH, ["cat", "dog", "cow"])
    assert result.counts == ((2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 0, 1))
    # Of answers that are no label the rows are left out; predictions that are none go under "anything else".
    assert confusion(WITH, ["cow"]).counts == ((0, 2),)


def test_the_page_holds_the_figures_and_nothing_that_could_run(tmp_path):
    path = write_evaluation_page(WITH, WITHOUT, tmp_path / "page.html", top_answers=2)
    page = path.read_text(encoding="utf-8")
    assert page.count("</script>") == 2
    assert not re.search(r"""(src|href)=["']|url\(|https?://""", page)
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    data = json.loads(text)
    assert data["summary"][0] == {
        "split": "dev",
        "task": "animal",
        "outcomes": {"helped": 2, "harmed": 1, "both right": 1, "wrong otherwise": 1, "wrong alike": 1},
    }
    assert data["rows"][2] == [*("dev", "animal", 2, "2 </script> [MASK]", "dog", ["span"], "dog", "cat", "harmed")]
    assert list(data["confusion"]) == ["dev"]
    assert data["confusion"]["dev"]["labels"] == ["cat", "dog"]
    assert data["confusion"]["dev"]["without"] == [[0, 2, 0], [0, 2, 0]]
    assert data["confusion"]["dev"]["with"] == [[2, 0, 0], [1, 1, 0]]


def test_several_splits_have_a_map_each_and_one_together(tmp_path):
    rows = [row(0, "cat", "cat", True), row(0, "dog", "cat", False, split="wiki")]
    path = write_evaluation_page(rows, rows, tmp_path / "page.html")
    data = json.loads(re.findall(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[0])
    assert {split: part["labels"] for split, part in data["confusion"].items()} == {
        "": ["cat", "dog"],
        "dev": ["cat"],
        "wiki": ["dog"],
    }


def test_pitch_alone_has_no_map_of_animals(tmp_path):
    page = write_evaluation_page(WITH[-1:], WITHOUT[-1:], tmp_path / "page.html").read_text(encoding="utf-8")
    assert '"confusion":{}' in page


def test_other_rows_are_refused(tmp_path):
    path = tmp_path / "page.html"
    with pytest.raises(ValueError, match="at 0 the row is 1 with audio and 0 without"):
        write_evaluation_page([WITH[1], WITH[0]], WITHOUT[:2], path)
    with pytest.raises(ValueError, match="1 rows with audio and 2 without"):
        write_evaluation_page(WITH[:1], WITHOUT[:2], path)
    with pytest.raises(ValueError, match="no rows"):
        write_evaluation_page([], [], path)
    with pytest.raises(ValueError, match="top_answers"):
        write_evaluation_page(WITH, WITHOUT, path, top_answers=0)
    assert not path.exists()
