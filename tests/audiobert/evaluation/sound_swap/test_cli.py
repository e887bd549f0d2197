"""The commands: making the questions, and asking a saved model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from swap_fixtures import few_questions, held_out_of_all, sounding_knowledge_base
from typer.testing import CliRunner

from audiobert.cli import app
from audiobert.evaluation.sound_swap.questions import PARTS, SOUND_SWAP_FOLDER, SoundSwap
from audiobert.listening.held_out import HELD_OUT_FILE

from model_fixtures import hearing_audiobert
from text_fixtures import tiny_bert, write_auditorybench


def run(*arguments: object) -> SimpleNamespace:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return SimpleNamespace(code=result.exit_code, out=result.stdout, all=" ".join(result.output.split()))


def asked_of(model: Path) -> int:
    return len(SoundSwap.load(model / SOUND_SWAP_FOLDER).questions)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with its list of what is held out and its questions."""
    folder = tmp_path_factory.mktemp("model")
    model = hearing_audiobert()
    model.set_knowledge_base(sounding_knowledge_base())
    model.save_pretrained(folder)
    held_out_of_all().save(folder / HELD_OUT_FILE)
    with few_questions(UNHEARD_PAIRS=3, SWAPPED_WORLDS=1, NEW_SOUNDS=1):
        made = run("make-sound-swap", folder, folder / HELD_OUT_FILE, folder / SOUND_SWAP_FOLDER)
    assert made.code == 0, made.all
    assert "(unheard names 12, " in made.all
    return folder


def test_the_questions_of_a_model_and_of_its_knowledge_base_are_written_once(saved, tmp_path):
    again = run("make-sound-swap", saved, saved / HELD_OUT_FILE, saved / SOUND_SWAP_FOLDER)
    assert again.code == 1
    assert "holds questions already" in again.all
    made = run("make-sound-swap", saved / "knowledge_base", saved / HELD_OUT_FILE, tmp_path / "swap", "--seed", "3")
    assert made.code == 0, made.all
    assert SoundSwap.load(tmp_path / "swap").seed == 3


def test_a_list_of_another_knowledge_base_is_refused_and_nothing_is_written(saved, tmp_path):
    (tmp_path / "held_out.json").write_text('{"seed": 0, "labels": ["ocarina"], "recordings": []}')
    made = run("make-sound-swap", saved, tmp_path / "held_out.json", tmp_path / "swap")
    assert made.code == 1
    assert "ocarina" in made.all
    assert not (tmp_path / "swap").exists()


def test_a_saved_model_is_asked_with_its_controls_and_every_answer_is_kept(saved, tmp_path):
    bert = tiny_bert(len(hearing_audiobert().tokenizer))
    bert.save_pretrained(tmp_path / "bert")
    hearing_audiobert().tokenizer.save_pretrained(tmp_path / "bert")
    asked = run(
        *("evaluate", saved, "--sound-swap", "--format", "json", "--save", tmp_path / "answers.jsonl"),
        *("--data", write_auditorybench(tmp_path), "--control", f"plain={tmp_path / 'bert'}"),
    )
    assert asked.code == 0, asked.all
    report = json.loads(asked.out)
    assert list(report["parts"]) == list(PARTS)
    listeners = list(report["parts"]["unheard names"])
    assert listeners[0] == "end to end"
    assert {"plain, text alone", "linear text-only", "majority answer", "blind CLAP"} <= set(listeners)
    assert report["parts"]["unheard names"]["plain, text alone"]["follows_sound"] == 0.5
    assert report["settings"]["controls"] == {"plain": "bert"}
    assert report["settings"]["retrieval_top_k"] == 1
    assert report["settings"]["retrieval"] == "label"
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == asked_of(saved) * len(listeners)


def test_questions_about_what_training_may_have_heard_are_refused_and_a_model_without_a_list_is_said(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "model")
    held_out = held_out_of_all()
    replace(held_out, labels=held_out.labels[1:]).save(tmp_path / "model" / HELD_OUT_FILE)
    asked = run("evaluate", tmp_path / "model", "--sound-swap")
    assert asked.code == 1
    assert f"({held_out.labels[0]}), which the model's list of what is held out does not name" in asked.all
    (tmp_path / "model" / HELD_OUT_FILE).unlink()
    asked = run("evaluate", tmp_path / "model", "--sound-swap", "--no-controls")
    assert asked.code == 0, asked.all
    assert "whether it was trained on these recordings is not known" in asked.all


def test_a_model_is_asked_as_a_table_with_fewer_controls(saved):
    asked = run("evaluate", saved, "--sound-swap", "--no-controls")
    assert asked.code == 0, asked.all
    assert "recordings given" in asked.all
    assert "random recordings" not in asked.all


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sound-swap", "--hearing", "random"], "--hearing means nothing for the sound swap"),
        (["--sound-swap", "--kind", "causal"], "--kind means nothing for the sound swap"),
        (["--sound-swap", "--control", "model"], "--control is NAME=MODEL"),
        (["--sound-swap", "--questions", "nowhere"], "nowhere holds no questions of the sound swap"),
        (["--control", "a=b"], "--control means nothing for AuditoryBench"),
        ([], "Name the folder of AuditoryBench with --data"),
    ],
)
def test_what_would_be_ignored_or_is_missing_is_one_error(saved, options, message):
    asked = run("evaluate", saved, *options)
    assert asked.code == 1
    assert message in asked.all
