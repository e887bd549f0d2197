import os

import pytest

from audiobert.data.auditorybench import load_auditorybench
from audiobert.evaluation.clusters import clusters_of
from audiobert.evaluation.predictions import RowPrediction
from audiobert.evaluation.significance import count_clusters


def row(task: str, *spans: str) -> RowPrediction:
    return RowPrediction("dev", task, 0, "A [MASK].", "x", spans, "x", True)


def test_a_row_shares_what_its_spans_say():
    rows = [
        row("animal", "Meow!"),
        row("animal", "meow"),
        row("pitch", "Double bass", "the  flute"),
        row("pitch", "meow"),
    ]
    first, second, pair, other_task = clusters_of(rows)
    assert first == second == (("animal", "meow"),)
    assert pair == (("pitch", "double bass"), ("pitch", "the flute"))
    assert other_task == (("pitch", "meow"),)
    assert count_clusters(clusters_of(rows)) == 3


def test_a_row_without_spans_stands_for_itself_and_a_sound_with_itself_is_one():
    rows = [row("animal"), row("animal", ""), row("animal", "?!"), row("pitch", "hum", "Hum")]
    assert clusters_of(rows) == [(), (), (), (("pitch", "hum"),)]
    assert count_clusters(clusters_of(rows)) == 4


@pytest.mark.real_data
@pytest.mark.skipif("AUDITORYBENCH_DIR" not in os.environ, reason="AUDITORYBENCH_DIR is not set to the real CSV files")
def test_the_wiki_rows_are_of_a_hundred_instruments_and_as_many_onomatopoeia():
    data = load_auditorybench(os.environ["AUDITORYBENCH_DIR"])
    found = {}
    for task in ("animal", "pitch"):
        rows = [row(part["task"], *part["spans"]) for part in data["wiki"] if part["task"] == task]
        found[task] = len(rows), count_clusters(clusters_of(rows))
    assert found == {"animal": (197, 94), "pitch": (3625, 103)}
