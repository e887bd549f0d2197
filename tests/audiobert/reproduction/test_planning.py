"""Which runs the tables need, how far they are, and what they will take."""

from dataclasses import replace

import pytest

from audiobert.reproduction.planning import done_runs, make_plan, plan_runs
from audiobert.reproduction.presets import BLIND, MINI, PAPER


def kinds(runs):
    return [(run.kind, run.what) for run in runs]


def test_each_table_has_its_runs():
    assert plan_runs(MINI, [1, 4], 5, True) == []
    assert kinds(plan_runs(MINI, [2], 1, True)) == [("detector", group) for group in ("animal", "pitch", "both")]
    third = plan_runs(MINI, [3], 1, False)
    assert [run.name for run in third[:4]] == ["majority-answer", "linear-text-only", "bert", "detector-both-0"]
    assert len(third) == 4 + 7
    assert ("audiobert", BLIND) in kinds(third)
    with_text = plan_runs(MINI, [3], 1, True)
    assert [run.name for run in with_text if run not in third] == ["preservation-0"]


@pytest.mark.parametrize("preset", [MINI, PAPER])
def test_names_are_unique_and_what_a_run_needs_comes_before_it(preset):
    runs = plan_runs(preset, [1, 2, 3, 4], 3, True)
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    for number, run in enumerate(runs):
        assert set(run.needs) <= set(names[:number])
    by_name = {run.name: run for run in runs}
    assert all(by_name[need].bert == run.bert and by_name[need].seed == run.seed for run in runs for need in run.needs)
    assert [run for run in runs if run.seed in (None, 0, 1)] == plan_runs(preset, [1, 2, 3, 4], 2, True)


def test_other_berts_have_audiobert_and_the_same_without_audio():
    runs = [run for run in plan_runs(PAPER, [2, 3], 1, True) if run.seed == 0 and run.bert == PAPER.berts[0]]
    assert kinds(runs) == [
        ("detector", "both"),
        ("audiobert", "AudioBERT (bert-base-uncased)"),
        ("audiobert", "no audio (bert-base-uncased)"),
    ]


def test_states_and_what_is_left(tmp_path):
    (tmp_path / "runs" / "bert").mkdir(parents=True)
    (tmp_path / "runs" / "detector-both-0.unfinished").mkdir()
    plan = make_plan(MINI, tmp_path, [3], 1, with_text=False)
    states = {planned.run.name: planned.state for planned in plan.runs}
    assert (states["bert"], states["detector-both-0"], states["audiobert-0"]) == ("done", "cut off", "to do")
    assert "bert" not in {run.name for run in plan.remaining}
    minutes = sum(planned.minutes for planned in plan.runs if planned.state != "done")
    assert plan.remaining_minutes == pytest.approx(minutes)
    time = f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:.1f} h"
    assert str(plan) == f"1 of 11 runs are done; the other 10 take about {time} on two cores."
    assert plan.to_dict()["runs"][2]["state"] == "done"
    assert "| detector-both-0 | cut off |" in plan.to_markdown()


@pytest.mark.parametrize(("preset", "is_cut"), [(MINI, True), (PAPER, False)])
def test_what_was_never_measured_has_no_time(preset, is_cut, tmp_path):
    plan = make_plan(preset, tmp_path, [2, 3], 1, with_text=False, is_cut=is_cut)
    assert all(planned.minutes is None for planned in plan.runs)
    assert plan.remaining_minutes is None and "is not known" in str(plan)


def test_done_runs_are_found_whatever_was_asked_for(tmp_path):
    for name in ("detector-pitch-0", "majority-answer", "audiobert-2", "detector-both-1.unfinished"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert [run.name for run in done_runs(MINI, tmp_path, 1)] == ["majority-answer", "detector-pitch-0"]
    assert "audiobert-2" in [run.name for run in done_runs(MINI, tmp_path, 3)]


@pytest.mark.parametrize(
    ("tables", "seeds", "named"), [([5], 1, "1, 2, 3, 4, got 5"), ([], 1, "got"), ([1], 0, "got 0")]
)
def test_what_cannot_be_planned_is_named(tables, seeds, named, tmp_path):
    with pytest.raises(ValueError, match=named):
        make_plan(MINI, tmp_path, tables, seeds, with_text=False)


def test_two_berts_of_one_name_never_share_a_folder(tmp_path):
    preset = replace(PAPER, berts=("one/bert", "other/bert", "main"))
    with pytest.raises(ValueError, match="one/bert, other/bert, main have the same name"):
        make_plan(preset, tmp_path, [3], 1, with_text=False)
