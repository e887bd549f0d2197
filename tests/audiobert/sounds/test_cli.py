"""`audiobert build-knowledge-base`, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from audiobert.cli import app
from audiobert.modeling.knowledge_audiobert import AudioBertKnowledgeBase

from audio_fixtures import save_tiny_ast, save_tiny_clap, write_recordings


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    audio = write_recordings(tmp_path / "audio", [{"file_name": f"{i}.wav", "label": "tone"} for i in range(3)])
    (audio / "1.wav").write_bytes(b"no sound")
    clap, ast = save_tiny_clap(tmp_path / "clap"), save_tiny_ast(tmp_path / "ast")
    return ["build-knowledge-base", str(audio), "--clap", str(clap), "--ast", str(ast)]


def test_a_knowledge_base_pooled_over_what_sounds(command: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*command, str(tmp_path / "out"), "--pooling", "sounding"])
    assert result.exit_code == 0, result.output
    assert "2 recordings" in result.stdout
    assert "1 were left out" in result.stdout
    assert "1.wav: " in result.stdout
    assert AudioBertKnowledgeBase.from_pretrained(tmp_path / "out").config.audio_pooling == "sounding"


def test_a_folder_that_cannot_be_written_is_one_sentence(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (".", str(tmp_path / "file")):
        result = CliRunner().invoke(app, [*command, out])
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert "folder" in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_a_knowledge_base_of_several_folders_that_is_measured_found_by_name_and_grows(
    command: list[str], tmp_path: Path
) -> None:
    rows = [{"file_name": f"more{i}.wav", "label": "hum", "source": ("free", "unclear")[i]} for i in range(2)]
    more = write_recordings(tmp_path / "more", rows)
    options = ["--without-source", "unclear", "--retrieval", "both", "--measure", "--carry-clap"]
    result = CliRunner().invoke(app, [*command[:2], str(more), str(tmp_path / "out"), *command[2:], *options])
    assert result.exit_code == 0, result.output
    knowledge_base = AudioBertKnowledgeBase.from_pretrained(tmp_path / "out")
    assert [knowledge_base.recording(row).id for row in range(3)] == ["0.wav", "2.wav", "more0.wav"]
    assert knowledge_base.recording(0).pitch_hz == pytest.approx(300, rel=0.01)
    assert knowledge_base.config.retrieval == "both"
    assert knowledge_base.audio_encoder().width == 8
