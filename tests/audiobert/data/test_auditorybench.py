from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiobert.data.auditorybench import SPLITS, load_auditorybench, read_rows

from text_fixtures import ANIMAL_ROWS, HEADERS, PITCH_ROWS, write_auditorybench, write_csv

# Rows of each split, train to wiki: table I of the paper.
TABLE_I = {"animal": (4211, 593, 1211, 197), "pitch": (8312, 1178, 2387, 3625)}


def test_splits_columns_and_rows(tmp_path):
    loaded = load_auditorybench(write_auditorybench(tmp_path))
    assert tuple(loaded) == SPLITS
    for split in loaded.values():
        assert split.column_names == ["sentence", "answer", "spans", "task"]
        assert split["task"][:] == ["animal"] * 3 + ["pitch"] * 2
    assert loaded["dev"][2] == {
        "sentence": 'A [MASK] makes a "hum" sound.',
        "answer": "duckling",
        "spans": ["hum"],
        "task": "animal",
    }
    assert loaded["wiki"][4]["spans"] == ["meow of a cat", "bark"]


@pytest.mark.parametrize("word", ["NA", "nan", "NULL", "None", "", " ", "1", '17" cymbal', '""', "a\nb"])
def test_no_text_is_taken_for_something_else(tmp_path, word):
    write_auditorybench(tmp_path, animal=[["cat", word, "A [MASK]."]])
    assert load_auditorybench(tmp_path)["test"][0]["spans"] == [word]


def test_columns_in_any_order_with_others_between(tmp_path):
    write_auditorybench(tmp_path)
    write_csv(tmp_path / "pitch_wiki.csv", ["span2", "id", "span1", "sentence", "answer"], [list("ba") + ["x"] * 3])
    with pytest.raises(ValueError, match="MASK"):
        load_auditorybench(tmp_path)
    write_csv(
        tmp_path / "pitch_wiki.csv",
        ["span2", "id", "span1", "sentence", "answer"],
        [["b", "7", "a", "[MASK]", "lower"]],
    )
    assert load_auditorybench(tmp_path, ["pitch"])["wiki"][0]["spans"] == ["a", "b"]


def test_a_split_without_rows_has_the_columns_all_the_same(tmp_path):
    write_auditorybench(tmp_path)
    for task in ("animal", "pitch"):
        path = tmp_path / f"{task}_dev.csv"
        path.write_text(path.read_text().splitlines()[0] + "\n")
    splits = load_auditorybench(tmp_path)
    assert len(splits["dev"]) == 0
    assert splits["dev"].features == splits["train"].features


def test_tasks_are_chosen(tmp_path):
    write_auditorybench(tmp_path)
    for split in SPLITS:
        (tmp_path / f"pitch_{split}.csv").unlink()
    assert set(load_auditorybench(tmp_path, tasks=["animal"])["train"]["task"]) == {"animal"}
    with pytest.raises(FileNotFoundError, match=r"pitch_train\.csv"):
        load_auditorybench(tmp_path)


@pytest.mark.parametrize("tasks", ["animal", [], ["animals"], ["animal", "animal"]])
def test_bad_tasks_are_refused(tmp_path, tasks):
    with pytest.raises(ValueError, match="`tasks` must be"):
        load_auditorybench(write_auditorybench(tmp_path), tasks=tasks)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column animal, sentence, description; its columns are none"),
        ("animal,sentence\ncat,A [MASK].\n", "no column description; its columns are"),
        ("animal,description,sentence\ncat,meow,A cat.\n", r"line 2: the sentence 'A cat.' has no \[MASK\]"),
        ("animal,description,sentence\n,meow,A [MASK].\n", "line 2: the answer is empty"),
        ("animal,description,sentence\ncat,a,A [MASK].\ncat,meow\n", "line 3: 2 cells under 3 columns"),
        ("animal,description,sentence\ncat,meow,A [MASK],.\n", "line 2: 4 cells under 3 columns"),
        ('animal,description,sentence\ncat,meow,"A [MASK].\n', "line 2: a quotation mark opens a cell"),
        ('animal,description,sentence\ncat,"meow"s,A [MASK].\n', "line 2: no valid CSV"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path, text, message):
    path = tmp_path / "animal_dev.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        list(read_rows(path, "animal"))
    assert str(path) in str(error.value)


def test_another_encoding_or_answer_is_refused(tmp_path):
    path = tmp_path / "pitch_dev.csv"
    path.write_bytes("sentence,answer,span1,span2\n[MASK],higher,Flûte,b\n".encode("latin-1"))
    with pytest.raises(ValueError, match="line 2: byte 0x.* is no UTF-8"):
        list(read_rows(path, "pitch"))
    write_csv(path, HEADERS["pitch"], [["[MASK]", "loud", "a", "b"]])
    with pytest.raises(ValueError, match="line 2: the answer must be higher or lower, got 'loud'"):
        list(read_rows(path, "pitch"))


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "animal_dev.csv"
    path.write_bytes("\ufeffanimal,description,sentence\r\ncat,meow,A [MASK].\r\n".encode())
    assert [row["answer"] for row in read_rows(path, "animal")] == ["cat"]


# NUL is left out as Python's csv module takes it from version 3.11 on only; surrogates are no UTF-8.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    st.lists(
        st.tuples(texts.filter(str.strip), texts, st.tuples(texts, texts).map("[MASK]".join)), min_size=1, max_size=5
    )
)
def test_any_text_survives_the_file(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = write_csv(Path(folder) / "animal_dev.csv", HEADERS["animal"], rows)
        read = [(row["answer"], *row["spans"], row["sentence"]) for row in read_rows(path, "animal")]
    assert read == rows


def test_the_rows_of_the_fixture_are_what_they_seem():
    assert all("[MASK]" in row[2] for row in ANIMAL_ROWS) and all("[MASK]" in row[0] for row in PITCH_ROWS)


@pytest.mark.real_data
@pytest.mark.skipif("AUDITORYBENCH_DIR" not in os.environ, reason="AUDITORYBENCH_DIR is not set to the real CSV files")
def test_real_counts_are_those_of_the_paper():
    loaded = load_auditorybench(os.environ["AUDITORYBENCH_DIR"])
    for task, counts in TABLE_I.items():
        assert tuple(split["task"][:].count(task) for split in loaded.values()) == counts
