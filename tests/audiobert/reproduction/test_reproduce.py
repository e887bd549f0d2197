"""`audiobert reproduce` as a user types it, at a few steps on a few rows."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from audiobert import AudioBertForMaskedLM
from audiobert.cli import app
from audiobert.reproduction import report, reproducing, runs
from audiobert.reproduction.planning import Plan
from audiobert.reproduction.presets import TINY
from audiobert.reproduction.runs import Workshop

from audio_fixtures import tiny_knowledge_base
from model_fixtures import tiny_config
from text_fixtures import tiny_tokenizer, write_auditorybench

runner = CliRunner()
SOUNDS = ("meow", "bark", "hum", "rain")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Options with a tiny AudioBERT in the place of the bundled one."""
    model, data = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("data")
    # Untrained: its detector and its adapter are begun anew by each run.
    torch.manual_seed(0)
    tiny = AudioBertForMaskedLM(tiny_config())
    tiny.set_knowledge_base(tiny_knowledge_base(audio_hidden_size=12), tiny_tokenizer())
    tiny.save_pretrained(model)
    # Enough of them that a detector of two steps finds none, or several that differ.
    animals = [[a, b, f"The {b} of a {a} is the sound a [MASK] makes."] for a in ("cat", "dog") for b in SOUNDS]
    write_auditorybench(data, animals)
    options = {"--data": data, "--preset": "tiny", "--bert": model, "--seeds": 1, "--max-steps": 2}
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
    workshop = Workshop(tmp_path / "out", TINY, Path(given[1]))
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
        (["--preset", "tiny", "--audio", "x"], "--audio means nothing"),
        (["--preset", "tiny", "--ast", "x"], "--ast means nothing without --bert"),
        (["--preset", "tiny", "--tables", "2", "--sheets", "x"], "--sheets means nothing"),
        (["--preset", "tiny", "--tables", "two"], "got 'two'"),
        (["--preset", "tiny", "--tables", "7"], "out of 1, 2, 3, 4, got 7"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(options, message, tmp_path):
    result = runner.invoke(app, ["reproduce", str(tmp_path / "out"), "--data", str(tmp_path), *options])
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
