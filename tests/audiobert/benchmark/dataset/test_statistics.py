"""The three figures of Table I."""

from __future__ import annotations

import json
import os
import re

import pytest
from rich.console import Console

from audiobert.benchmark.dataset.publication import read_dataset
from audiobert.benchmark.dataset.statistics import PAPER_TABLE_I, SplitStatistics, benchmark_statistics
from audiobert.data.auditorybench import load_auditorybench

from text_fixtures import write_auditorybench


def printed(table) -> str:
    console = Console(width=200, record=True, file=open(os.devnull, "w"))
    console.print(table)
    return console.export_text()


def test_tokens_are_words_between_white_space(tmp_path):
    counted = benchmark_statistics(read_dataset(write_auditorybench(tmp_path)))
    # "Meow is the sound a [MASK] makes." has 7, "The sound of a bark is [MASK]." 7, 'A [MASK] makes a "hum" sound.' 6.
    assert counted.tasks["animal"]["dev"] == SplitStatistics(captions=3, total_tokens=20)
    assert counted.tasks["animal"]["dev"].words_per_caption == pytest.approx(20 / 3)
    assert counted.tasks["pitch"]["wiki"] == SplitStatistics(captions=2, total_tokens=21)
    assert benchmark_statistics(load_auditorybench(tmp_path)) == counted


def test_json_and_tables(tmp_path):
    counted = benchmark_statistics(read_dataset(write_auditorybench(tmp_path)))
    assert json.loads(counted.to_json())["pitch"]["test"] == {
        "captions": 2,
        "words_per_caption": 10.5,
        "total_tokens": 21,
    }
    assert "| animal | train | 3 | 6.67 | 20 |" in counted.to_markdown().splitlines()
    assert re.search(r"animal\W+train\W+3\W+6\.67\W+20\W", printed(counted.to_table()))
    assert "151,081" not in printed(counted.to_table())
    beside = printed(counted.to_table(paper=True))
    assert re.search(r"pitch\W+train\W+2\W+10\.50\W+21\W+8,312\W+18\.18\W+151,081", beside)


def test_a_split_or_a_task_without_rows_counts_nothing():
    row = {"task": "animal", "sentence": "A [MASK]."}
    counted = benchmark_statistics({"train": [row], "test": []})
    assert counted.tasks["animal"] == {"train": SplitStatistics(1, 2), "test": SplitStatistics(0, 0)}
    assert counted.tasks["pitch"]["train"].words_per_caption is None
    assert "| pitch | test | 0 | - | 0 |" in counted.to_markdown()


def test_what_is_no_part_of_a_benchmark_is_refused():
    row = {"task": "smell", "sentence": "A [MASK]."}
    with pytest.raises(ValueError, match="tasks of a benchmark are animal, pitch; dev has 'smell'"):
        benchmark_statistics({"dev": [row]})
    with pytest.raises(ValueError, match="splits of a benchmark are train, dev, test, wiki; got validation"):
        benchmark_statistics({"validation": [row]})


@pytest.mark.real_data
@pytest.mark.skipif("AUDITORYBENCH_DIR" not in os.environ, reason="AUDITORYBENCH_DIR is not set to the real CSV files")
def test_the_published_files_give_table_i_of_the_paper():
    counted = benchmark_statistics(read_dataset(os.environ["AUDITORYBENCH_DIR"])).tasks
    assert counted["animal"].pop("train") == SplitStatistics(captions=4211, total_tokens=39033)
    assert PAPER_TABLE_I["animal"]["train"] == SplitStatistics(captions=4211, total_tokens=39024)
    expected = {**PAPER_TABLE_I, "animal": {k: v for k, v in PAPER_TABLE_I["animal"].items() if k != "train"}}
    assert counted == expected
    assert sum(map(len, counted.values())) == 7
