"""`audiobert reproduce` as a user types it, at a few steps on a few rows."""

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from swap_fixtures import few_questions, sounding_knowledge_base
from typer.testing import CliRunner

from audiobert import AudioBertForMaskedLM
from audiobert.cli import app
from audiobert.evaluation.sound_swap.answering import LISTENERS
from audiobert.evaluation.sound_swap.answers import load_answers
from audiobert.evaluation.sound_swap.making import make_sound_swap
from audiobert.evaluation.sound_swap.questions import PARTS, SOUND_SWAP_FOLDER
from audiobert.listening.held_out import HELD_OUT_FILE, HeldOut
from audiobert.reproduction import report, reproducing, runs
from audiobert.reproduction.planning import Plan
from audiobert.reproduction.presets import MINI
from audiobert.reproduction.workshop import Workshop

from model_fixtures import tiny_config
from text_fixtures import tiny_tokenizer, write_auditorybench

runner = CliRunner()
SOUNDS = ("meow", "bark", "hum", "rain")
HELD_OUT = HeldOut(0, ("glockenspiel", "oboe", "piccolo", "tuba"), ("cat-0.ogg", "dog-0.ogg"))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Options with a tiny AudioBERT in the place of the bundled one, its held-out list, and its questions."""
    model, data = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("data")
    # Untrained: its detector and its adapter are begun anew by each run.
    torch.manual_seed(0)
    tiny = AudioBertForMaskedLM(tiny_config())
    tiny.set_knowledge_base(sounding_knowledge_base(), tiny_tokenizer())
    tiny.save_pretrained(model)
    HELD_OUT.save_pretrained(model)
    with few_questions(UNHEARD_PAIRS=3, SWAPPED_WORLDS=1, NEW_SOUNDS=1):
        make_sound_swap(sounding_knowledge_base(), HELD_OUT).save(model / SOUND_SWAP_FOLDER)
    # Enough of them that a detector of two steps finds none, or several that differ.
    animals = [[a, b, f"The {b} of a {a} is the sound a [MASK] makes."] for a in ("cat", "dog") for b in SOUNDS]
    write_auditorybench(data, animals)
    options = {"--data": data, "--preset": "mini", "--bert": model, "--seeds": 1, "--max-steps": 2}
    return [str(part) for option in options.items() for part in option]


@pytest.fixture(scope="module")
def done(given, tmp_path_factory):
    """A folder with all runs of all tables, and what was printed."""
    out = tmp_path_factory.mktemp("out")
    return out, runner.invoke(app, ["reproduce", str(out), *given])


@pytest.fixture
def no_drawing(monkeypatch):
    """Figures, which take long to draw, stay as they are."""
    monkeypatch.setattr(report, "write_figures", lambda findings, folder: sorted(folder.glob("*.png")))


def test_everything_is_run_and_reported(done):
    out, result = done
    assert result.exit_code == 0, result.output
    assert len([path for path in (out / "runs").iterdir() if path.is_dir()]) == 13
    assert not list((out / "runs").glob("*.unfinished"))
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "AudioBERT" in text and "This is a try, and its figures mean nothing" in text.split("\n\n")[1]
    assert json.loads((out / "configuration.json").read_text(encoding="utf-8"))["cut"]["rows"] == 32
    assert json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert list((out / "figures").glob("*.png")) and list((out / "figures").glob("*.svg"))


def test_the_minis_trainings_listen_and_hear_nothing_that_is_held_out(done):
    out, _ = done

    def settings(run):
        return json.loads((out / "runs" / run / "training.json").read_text(encoding="utf-8"))

    kept = json.loads(json.dumps(asdict(HELD_OUT)))
    hearing = {"share": 0.5, "held_out": kept, "vary_recordings": True, "audio_dropout": 0.1}
    nothing = {"share": 0.0, "held_out": None, "vary_recordings": False, "audio_dropout": 0.0}
    heard = {
        "audiobert-0": "retrieved",
        "random-recording-0": "random",
        "another-spans-recording-0": "other-span",
        "blind-clap-0": "blind-clap",
        "oracle-retrieval-0": "oracle",
    }
    for run, how in heard.items():
        assert (settings(run)["audio"], settings(run)["hearing"]) == ("cached", how)
        assert settings(run)["listening"] == hearing
    # What hears nothing is trained on the same rows.
    for run, how in {"no-audio-0": "retrieved", "label-as-text-0": "label-text"}.items():
        assert (settings(run)["audio"], settings(run)["hearing"]) == ("none", how)
        assert settings(run)["listening"] == {**nothing, "share": 0.5, "held_out": kept}
    assert settings("detector-both-0")["listening"] == {**nothing, "share": 0.25, "held_out": kept}
    # Of one task alone are the rows of one task.
    assert settings("detector-animal-0")["listening"] == settings("detector-pitch-0")["listening"] == nothing


def test_a_trained_model_hears_as_the_preset_says_and_goes_with_its_held_out_list(done):
    model = done[0] / "runs" / "audiobert-0" / "model"
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    assert MINI.config.items() <= config.items()
    assert HeldOut.load(model / HELD_OUT_FILE) == HELD_OUT


def swap_answers(out, run):
    return load_answers(out / "runs" / run / "sound_swap.jsonl")


def test_the_sound_swap_is_answered_by_all_who_hear_and_by_those_trained_otherwise(done):
    out, _ = done
    parts = json.loads((out / "results.json").read_text(encoding="utf-8"))["sound_swap"]["parts"]
    trained = ["without audio", "on random recordings", "on another span's", "on blind CLAP"]
    everyone = [*LISTENERS, *(f"trained {how}" for how in trained), "linear text-only", "majority answer"]
    assert {part: list(listeners) for part, listeners in parts.items()} == dict.fromkeys(PARTS, everyone)
    assert list(swap_answers(out, "audiobert-0")) == list(LISTENERS)
    # As each was trained: a control of random recordings hears some, that of blind CLAP none.
    for run, hears_recordings in {"random-recording-0": True, "blind-clap-0": False, "no-audio-0": False}.items():
        ((_, answers),) = swap_answers(out, run).items()
        assert {answer.heard_as is not None for answer in answers} == {hears_recordings}
    for run in ("label-as-text-0", "oracle-retrieval-0", "bert"):
        assert not (out / "runs" / run / "sound_swap.jsonl").exists()
    text = (out / "report.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[:2] == ["## Did the audio help?", "## Does it hear? The sound swap"]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (HELD_OUT_FILE, "has no held_out.json, which preset mini needs"),
        (SOUND_SWAP_FOLDER, "has no sound_swap/settings.json, which preset mini needs"),
    ],
)
def test_what_must_come_with_the_checkpoint_is_missed_before_anything_is_trained(gone, message, given, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(given[given.index("--bert") + 1], model, ignore=shutil.ignore_patterns(gone))
    result = runner.invoke(app, ["reproduce", str(tmp_path / "out"), *given[:-6], "--bert", str(model)])
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert result.stderr.count("Error") == 1 and not (tmp_path / "out").exists()


def test_questions_about_what_training_may_hear_are_refused(given, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(given[given.index("--bert") + 1], model)
    replace(HELD_OUT, labels=HELD_OUT.labels[1:]).save_pretrained(model)
    workshop = Workshop(tmp_path / "out", replace(MINI, berts=(str(model),)), Path(given[1]))
    with pytest.raises(ValueError, match=r"\(glockenspiel\), which the model's list of what is held out does not name"):
        workshop.check()


def test_what_is_done_is_not_done_again(done, given, no_drawing, monkeypatch):
    out, _ = done
    report = (out / "report.md").read_bytes()
    monkeypatch.setattr(reproducing, "do_run", lambda run, workshop: pytest.fail(f"{run.name} is done"))
    result = runner.invoke(app, ["reproduce", str(out), *given])
    assert result.exit_code == 0, result.output
    assert "13 of 13 runs are done." in " ".join(result.stdout.split())
    assert (out / "report.md").read_bytes() == report


@pytest.mark.parametrize("plan", [[], ["--plan"]])
def test_another_configuration_is_refused(plan, done, given):
    out, _ = done
    result = runner.invoke(app, ["reproduce", str(out), *given, "--max-steps", "3", *plan])
    assert result.exit_code == 1
    assert "max_steps 2, now 3" in " ".join(result.stderr.split())


def test_a_plan_changes_nothing(given, tmp_path):
    result = runner.invoke(app, ["reproduce", str(tmp_path / "out"), *given, "--plan"])
    assert result.exit_code == 0, result.output
    assert "audiobert-0" in result.stdout
    assert not (tmp_path / "out").exists()


def test_a_plan_loads_no_library_of_models(given, tmp_path):
    script = (
        "import sys, audiobert; before = set(sys.modules); from audiobert.cli import app; "
        f"app({['reproduce', str(tmp_path / 'out'), *given, '--plan']!r}, standalone_mode=False); "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    loaded = set(ast.literal_eval(result.stdout.splitlines()[-1]))
    heavy = {"torch", "transformers", "datasets", "accelerate", "peft", "sklearn", "scipy", "matplotlib", "pandas"}
    assert "typer" in loaded and not heavy & loaded


def test_of_several_processes_one_keeps_the_configuration(given, tmp_path, monkeypatch):
    class Second:
        is_main_process = False
        num_processes = 2

        def wait_for_everyone(self):
            pass

    monkeypatch.setattr(reproducing, "PartialState", Second)
    workshop = Workshop(tmp_path / "out", MINI, Path(given[1]))
    assert reproducing.reproduce(Plan(()), workshop, [2], 1, tell=pytest.fail) == {}
    assert not (tmp_path / "out").exists()


def test_a_killed_run_goes_on(done, given, no_drawing, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*args, **kwargs):
        raise Killed

    # All the others are done.
    shutil.copytree(done[0] / "runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "detector-animal-0")
    shutil.copy(done[0] / "configuration.json", tmp_path)
    options = ["reproduce", str(tmp_path), *given, "--tables", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "evaluate_detector", killed)
        with pytest.raises(Killed):
            runner.invoke(app, options)
    unfinished = tmp_path / "runs" / "detector-animal-0.unfinished"
    assert list((unfinished / "checkpoints").iterdir())
    assert not (tmp_path / "report.md").exists()
    assert "cut off" in runner.invoke(app, [*options, "--plan"]).stdout
    (tmp_path / "runs" / "detector-animal-0.error.txt").write_text("It failed before.")
    result = runner.invoke(app, options)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(
        path.name for path in (done[0] / "runs").iterdir()
    ), "only the runs' folders are left"


def test_a_failing_run_holds_up_none_but_those_that_need_it(given, no_drawing, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("no more\nmemory")

    options = ["reproduce", str(tmp_path), *given, "--tables", "3"]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "train_detector", fails)
        result = runner.invoke(app, options)
    assert result.exit_code == 1
    printed = " ".join(result.output.split())
    assert "detector-both-0 failed: no more memory" in printed
    assert "audiobert-0 failed: Run audiobert-0 needs detector-both-0" in printed
    assert "8 of 11 runs failed" in printed
    assert "RuntimeError" in (tmp_path / "runs" / "detector-both-0.error.txt").read_text()
    assert (tmp_path / "runs" / "majority-answer").is_dir()
    assert (tmp_path / "report.md").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "paper"], "needs --knowledge-base"),
        (["--preset", "paper", "--knowledge-base", "x"], "needs --audio for Table III"),
        (["--preset", "mini", "--audio", "x"], "--audio means nothing"),
        (["--preset", "mini", "--ast", "x"], "--ast means nothing without --bert"),
        (["--preset", "mini", "--tables", "2", "--sheets", "x"], "--sheets means nothing"),
        (["--preset", "mini", "--tables", "two"], "got 'two'"),
        (["--preset", "mini", "--tables", "7"], "out of 1, 2, 3, 4, got 7"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(options, message, tmp_path):
    result = runner.invoke(app, ["reproduce", str(tmp_path / "out"), "--data", str(tmp_path), *options])
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
