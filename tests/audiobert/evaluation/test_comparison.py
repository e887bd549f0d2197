import json
from itertools import combinations

import numpy as np
import pytest
from rich.console import Console

from audiobert.evaluation.comparison import accuracy_report, check_same_rows, compare
from audiobert.evaluation.predictions import RowPrediction
from audiobert.evaluation.significance import bootstrap_interval, holm, mcnemar, paired_bootstrap


def predictions(correct: str, split: str = "dev", task: str = "animal", first_row: int = 0) -> list[RowPrediction]:
    """A row for each 1, right, and each 0, wrong."""
    return [
        RowPrediction(
            split, task, row, f"Meow {row} of a [MASK].", "cat", (f"meow {row}",), "cat" if right else "dog", right
        )
        for row, right in enumerate((figure == "1" for figure in correct), first_row)
    ]


def test_accuracies_of_tasks_and_of_both_together():
    seeds = [
        predictions(animal)
        + predictions(pitch, task="pitch", first_row=4)
        + predictions("1", split="wiki", task="pitch")
        for animal, pitch in (("1000", "110"), ("1110", "111"))
    ]
    report = accuracy_report({"model": seeds, "control": [predictions("1100")]})
    dev = report.accuracies["model"]["dev"]
    assert list(dev) == ["animal", "pitch", "combined"]
    assert [(part.rows, part.seeds) for part in dev.values()] == [(4, 2), (3, 2), (7, 2)]
    assert [part.mean for part in dev.values()] == pytest.approx([0.5, 5 / 6, 9 / 14])
    # The sample deviation of two numbers is their distance by the root of 2.
    assert dev["animal"].sd == pytest.approx(0.5 / 2**0.5)
    assert dev["animal"].interval == bootstrap_interval([[1, 0, 0, 0], [1, 1, 1, 0]] == np.ones((2, 4)))
    # One task is not combined with itself; two seeds that agree have no deviation but 0, and one row tells nothing.
    (wiki,) = report.accuracies["model"]["wiki"].values()
    assert (wiki.mean, wiki.sd, wiki.interval) == (1, 0, (0, 1))
    assert report.accuracies["control"]["dev"]["animal"].sd is None
    assert list(report.accuracies["control"]) == ["dev"]


def test_the_report_as_table_json_and_markdown():
    report = accuracy_report({"a | b": [predictions("10"), predictions("11")], "control": [predictions("01")]})
    lines = report.to_markdown().splitlines()
    figures = "accuracy | sd | 95 % interval | ceiling | set-valued"
    assert lines[0].startswith(f"| split | task | model | rows | clusters | seeds | {figures} |")
    # One resample in 16 has the wrong row of the first seed alone.
    assert lines[2] == "| dev | animal | a \\| b | 2 | 2 | 2 | 75.00 | 35.36 | [0.00, 100.00] | 100.00 | 75.00 |"
    assert lines[3].startswith("| dev | animal | control | 2 | 2 | 1 | 50.00 | - | [0.00, 100.00] |")
    assert "bootstrap over instruments (pitch: both sounds of a pair) and over onomatopoeia" in lines[-1]
    parsed = json.loads(report.to_json())["control"]["dev"]["animal"]
    sizes = {"rows": 2, "clusters": 2, "seeds": 1}
    assert parsed == {**sizes, "mean": 0.5, "sd": None, "interval": [0, 1], "ceiling": 1, "set_valued": 0.5}
    console = Console(width=140)
    with console.capture() as captured:
        console.print(report.to_table())
    assert "[0.00, 100.00]" in captured.get()


def shared(correct: str, task: str, spans: list[tuple[str, ...]], predicted: str = "dog") -> list[RowPrediction]:
    """Rows with these spans, whose sentence is the same if their spans are."""
    return [
        RowPrediction(
            "wiki", task, number, f"{span} [MASK]", animal, span, animal if right == "1" else predicted, right == "1"
        )
        for number, (right, span, animal) in enumerate(zip(correct, spans, ("cat", "dog", "cow") * 40, strict=False))
    ]


def test_intervals_and_tests_are_over_what_rows_share():
    pairs = list(combinations(("Flute", "tuba", "oboe", "harp", "bell", "drum", "horn"), 2))
    onomatopoeia = [(sound,) for sound in ("Growl", "meow", "growl!", "moo", "hiss", "hoot", "yelp") for _ in range(3)]
    for task, spans in (("pitch", pairs), ("animal", onomatopoeia)):
        audio, control = ([shared(noisy(share, 21, seed), task, spans) for seed in range(2)] for share in (0.8, 0.4))
        (column,) = compare(audio, control).columns
        first, second = ([[row.correct for row in run] for run in runs] for runs in (audio, control))
        shares = [tuple(span.strip("!").lower() for span in row.spans) for row in audio[0]]
        found = paired_bootstrap(first, second, clusters=shares)
        assert (column.interval, column.bootstrap_p) == (found.interval, found.p)
        assert column.interval != paired_bootstrap(first, second).interval
        assert column.audio.interval == bootstrap_interval(first, clusters=shares) != bootstrap_interval(first)
        assert (column.audio.rows, column.audio.clusters) == (21, 7 if task == "pitch" else 6)
        (accuracy,) = accuracy_report({"audio": audio}).accuracies["audio"]["wiki"].values()
        assert accuracy == column.audio


def test_ceilings_and_sets_of_answers_stand_beside_accuracies():
    # Three rows of one sentence have three answers, of which "dog" is always given.
    runs = [shared("010010", "animal", [("growl",)] * 3 + [("hoot",)] * 3)]
    (column,) = compare(runs, [shared("000000", "animal", [("growl",)] * 3 + [("hoot",)] * 3, "horse")]).columns
    assert (column.audio.mean, column.audio.ceiling, column.audio.set_valued) == pytest.approx((1 / 3, 1 / 3, 1))
    assert (column.control.ceiling, column.control.set_valued) == pytest.approx((1 / 3, 0))
    table = compare(runs, runs).to_markdown()
    assert "| clusters | ceiling | audio |" in table and "| 2 | 33.33 | 33.33 |" in table
    assert "| 100.00 / 100.00 |" in table and "Set-valued: right if any row" in table


def noisy(accuracy: float, rows: int, seed: int) -> str:
    return "".join("01"[int(right)] for right in np.random.default_rng(seed).random(rows) < accuracy)


def test_audio_against_control():
    columns = [("animal", 0.6, 0.4, 80), ("pitch", 0.75, 0.74, 120)]
    audio, control = [
        [
            [
                row
                for place, column in enumerate(columns)
                for row in predictions(noisy(column[side], column[3], 10 * seed + side), "dev", column[0], 80 * place)
            ]
            for seed in range(seeds)
        ]
        for side, seeds in ((1, 3), (2, 1))
    ]
    found = compare(audio, control).columns
    assert [(column.split, column.task, column.audio.rows) for column in found] == [
        ("dev", "animal", 80),
        ("dev", "pitch", 120),
    ]
    for column, rows in zip(found, (slice(0, 80), slice(80, 200)), strict=True):
        right = [np.array([row.correct for row in run[rows]]) for run in (*audio, *control)]
        assert (column.difference, column.interval, column.bootstrap_p) == paired_bootstrap(right[:3], right[3:])
        assert column.difference == pytest.approx(column.audio.mean - column.control.mean)
        # Three pairs: the second smallest p by 3/2.
        assert column.mcnemar_p == min(1, 1.5 * sorted(mcnemar(seed, right[3]).p for seed in right[:3])[1])
    assert [column.mcnemar_p_holm for column in found] == holm([column.mcnemar_p for column in found])
    assert [column.bootstrap_p_holm for column in found] == holm([column.bootstrap_p for column in found])
    assert found[0].bootstrap_p_holm < 0.05 < found[1].bootstrap_p_holm


def test_one_seed_against_one_is_mcnemar_itself():
    audio, control = predictions("1111111100"), predictions("0000000011")
    (column,) = compare([audio], [control]).columns
    assert column.mcnemar_p == column.mcnemar_p_holm == pytest.approx(2 * 56 / 1024)


def test_many_equal_seeds_do_not_make_a_small_p():
    # Drawing the same numbers again and again is no new evidence, as it would be if all pairs were thrown together.
    audio, control = predictions("1111111100"), predictions("0000000011")
    (column,) = compare([audio] * 5, [control] * 5).columns
    assert column.mcnemar_p == pytest.approx(2 * 56 / 1024 * 25 / 13)


def test_models_that_are_alike():
    (column,) = compare([predictions("10")], [predictions("10")]).columns
    assert (column.difference, column.interval, column.mcnemar_p, column.bootstrap_p) == (0, (0, 0), 1, 1)


def test_one_row():
    (column,) = compare([predictions("1")], [predictions("0")]).columns
    assert (column.difference, column.interval, column.bootstrap_p, column.mcnemar_p) == (1, (-1, 1), 1, 1)
    assert "nan" not in compare([predictions("1")], [predictions("0")]).to_json().lower()


def test_the_comparison_as_table_json_and_markdown():
    comparison = compare([predictions("1" * 40)] * 2, [predictions("0" * 40)])
    header, _, row, _, note = comparison.to_markdown().splitlines()
    assert "| bootstrap p | McNemar p, by row | set-valued |" in header
    assert row == (
        "| dev | animal | 40 | 40 | 100.00 | 100.00 ± 0.00 | 0.00 | +100.00 | [+100.00, +100.00] | &lt; 0.001 | "
        "&lt; 0.001 | 100.00 / 0.00 |"
    )
    assert "McNemar's test is by row" in note
    (column,) = json.loads(comparison.to_json())["columns"]
    assert column["interval"] == [1, 1]
    assert column["audio"]["mean"] == 1
    console = Console(width=150)
    with console.capture() as captured:
        console.print(comparison.to_table())
    assert "p by Holm over 1 column" in captured.get()
    assert "[+100.00, +100.00]" in captured.get()


def test_rows_that_cannot_be_paired_are_refused():
    rows = predictions("1010")
    with pytest.raises(ValueError, match="number 0 is of .*Meow 0 .*Meow 3"):
        compare([rows], [rows[::-1]])
    with pytest.raises(ValueError, match="number 2 .*Meow 2 .*Meow 3"):
        compare([rows, [*rows[:2], rows[3], rows[2]]], [rows])
    with pytest.raises(ValueError, match="of 4 and of 3 rows"):
        compare([rows], [rows[:3]])
    with pytest.raises(ValueError, match="in the same order"):
        compare([rows], [predictions("1010", split="test")])
    check_same_rows([rows, predictions("0101")])


@pytest.mark.parametrize("runs", [[], [[]], [predictions("1"), []]])
def test_no_predictions(runs):
    with pytest.raises(ValueError, match="no predictions"):
        compare(runs, runs)
    with pytest.raises(ValueError, match="no predictions"):
        accuracy_report({"model": runs})


def test_the_predictions_of_one_seed_need_a_list_around_them():
    with pytest.raises(TypeError, match="wrap"):
        accuracy_report({"model": predictions("10")})
    with pytest.raises(TypeError, match="wrap"):
        compare([predictions("10")], predictions("10"))
