"""The bundled checkpoint and the knowledge base builder on real data, where it is there."""

import csv
import os
import re
import shutil

import pytest

from audiobert import AudioBertForMaskedLM, AudioBertKnowledgeBase, bundled
from audiobert.data.auditorybench import load_auditorybench
from audiobert.evaluation.masked import evaluate_model
from audiobert.sounds.building import build_knowledge_base

from audio_fixtures import save_tiny_ast, save_tiny_clap

pytestmark = pytest.mark.real_data
needs_auditorybench = pytest.mark.skipif(
    "AUDITORYBENCH_DIR" not in os.environ, reason="AUDITORYBENCH_DIR does not name AuditoryBench's CSV files"
)
needs_audio = pytest.mark.skipif(
    "AUDIO_DIR" not in os.environ, reason="AUDIO_DIR does not name a folder of recordings with metadata.csv"
)


@needs_auditorybench
def test_the_bundled_checkpoint_answers_as_its_card_says():
    dev = load_auditorybench(os.environ["AUDITORYBENCH_DIR"])["dev"]
    model = AudioBertForMaskedLM.from_pretrained(bundled())
    scores = evaluate_model(model, model.tokenizer, dev, batch_size=64, progress=False).scores["data"]
    card = " ".join((bundled() / "README.md").read_text(encoding="utf-8").split())
    triple = r"([\d.]+) / [\d.]+ / [\d.]+"
    of_its_own = re.search(f"this checkpoint itself .*? has {triple} on animal .*? and {triple} on pitch", card)
    animal, pitch = of_its_own.groups()
    # On another processor a row or two may turn out otherwise.
    assert 100 * scores["animal"].accuracy == pytest.approx(float(animal), abs=0.35)
    assert 100 * scores["pitch"].accuracy == pytest.approx(float(pitch), abs=0.35)
    assert scores["animal"].span_f1 > 0.85
    assert scores["pitch"].span_f1 > 0.9


@needs_audio
def test_a_knowledge_base_of_real_recordings(tmp_path):
    folder = os.environ["AUDIO_DIR"]
    with open(os.path.join(folder, "metadata.csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::200]
    for row in rows:
        (tmp_path / "some" / row["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.join(folder, row["file_name"]), tmp_path / "some" / row["file_name"])
    with open(tmp_path / "some" / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    encoders = {"clap": save_tiny_clap(tmp_path / "clap"), "ast": save_tiny_ast(tmp_path / "ast")}
    report = build_knowledge_base(tmp_path / "some", tmp_path / "base", **encoders)
    assert (report.count, report.skipped) == (len(rows), ())
    base = AudioBertKnowledgeBase.from_pretrained(tmp_path / "base")
    assert [base.recording(i).label for i in range(len(base))] == [row["label"] for row in rows]
    assert base.recording(0).seconds == float(rows[0]["seconds"])
