"""The examples run as they stand."""

import runpy
from pathlib import Path

import pytest

from audiobert import AudioBertForMaskedLM
from audiobert.data.auditorybench import load_auditorybench

from audio_fixtures import save_tiny_clap, write_recordings
from llm_script import scripted_reply
from llm_server import MODEL, LlmServer
from model_fixtures import hearing_audiobert
from text_fixtures import write_auditorybench

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch):
    def run(name: str, *arguments: object) -> dict:
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


def test_fill_mask(run, capsys):
    run("fill_mask.py")
    assert "('meow', 'cat'" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train_detector.py", "train_audiobert.py"])
def test_training(name, run, tmp_path):
    hearing_audiobert().save_pretrained(tmp_path / "start")
    (tmp_path / "data").mkdir()
    data = write_auditorybench(tmp_path / "data")
    run(name, tmp_path / "start", data, tmp_path / "out")
    assert AudioBertForMaskedLM.from_pretrained(tmp_path / "out").knowledge_base is not None


def test_train_clap(run, tmp_path):
    rows = [{"file_name": f"{i}.wav", "label": ("dog", "cat")[i % 2]} for i in range(6)]
    audio = write_recordings(tmp_path / "audio", rows)
    run("train_clap.py", save_tiny_clap(tmp_path / "clap"), audio, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_build_benchmark(run, tmp_path, capsys):
    rows = [{"file_name": f"{i}.wav", "label": ("dog", "siren", "piano")[i % 3]} for i in range(9)]
    audio = write_recordings(tmp_path / "audio", rows)
    with LlmServer(scripted_reply) as server:
        run("build_benchmark.py", audio, tmp_path / "out", server.url, MODEL)
    assert "records: 9 of 9" in capsys.readouterr().out
    assert "dog" in load_auditorybench(tmp_path / "out")["train"]["answer"]
