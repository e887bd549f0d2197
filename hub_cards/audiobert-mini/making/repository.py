"""The Hub repository: a trained checkpoint with its card, its report and the attribution of its recordings."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from audiobert import AudioBertForMaskedLM
from audiobert.evaluation.sound_swap.questions import SOUND_SWAP_FOLDER
from audiobert.listening.held_out import HELD_OUT_FILE
from audiobert.reports.paper import paper_tables
from audiobert.reproduction.findings import Results, find
from audiobert.reproduction.report import SWAP_NOTE, accuracy_table, detector_table, swap_table
from audiobert.reproduction.verdict import verdict

from .start import save_halved

ESC_FILE = "ESC-50-ATTRIBUTION.txt"


def attributions(folder: Path) -> dict[str, tuple[str, str, str]]:
    """By the id of each recording of a folder its source, its license, and who made it."""
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    clips: dict[str, str] = {}
    if (folder / ESC_FILE).is_file():
        text = (folder / ESC_FILE).read_text(encoding="utf-8")
        clips = dict(re.findall(r"^- \[(\S+)\.ogg\]:\s+(.*)$", text, re.MULTILINE))
    # ESC-50 adds the number of the class to the name of a clip.
    return {
        row["file_name"]: (
            row["source"],
            row["license"],
            row.get("author_or_url") or clips.get(re.sub(r"(-\d+)?\.ogg$", "", Path(row["file_name"]).name), ""),
        )
        for row in rows
    }


def write_attribution(out: Path, model: AudioBertForMaskedLM, folders: Sequence[Path]) -> None:
    """Writes who made each recording of the knowledge base, and under which license."""
    sounds = model.knowledge_base
    assert sounds is not None  # of a model that hears
    known = {name: found for folder in folders for name, found in attributions(folder).items()}
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "label", "source", "license", "attribution"])
        for row in range(len(sounds)):
            recording = sounds.recording(row)
            writer.writerow([recording.id, recording.label, *known[recording.id]])


def parts_table(model: AudioBertForMaskedLM) -> str:
    """Markdown: how large each part of a checkpoint is."""
    sounds = model.knowledge_base
    assert sounds is not None  # of a model that hears
    count = {"BERT": 0, "LoRA": 0}
    for name, parameter in model.text_model.named_parameters():
        count["LoRA" if "lora_" in name else "BERT"] += parameter.numel()
    for name, part in (("AST", model.audio_model), ("detector", model.detector), ("audio map", model.audio_projection)):
        count[name] = sum(parameter.numel() for parameter in part.parameters())
    count["CLAP's text tower"] = sum(parameter.numel() for parameter in sounds.query_encoder.model.parameters())
    lines = ["| part | size |", "|---|---|"]
    lines += [f"| {name} | {number / 1e6:.2f} M parameters |" for name, number in count.items()]
    labels = len({sounds.recording(row).label for row in range(len(sounds))})
    return "\n".join([*lines, f"| knowledge base | {len(sounds):,} recordings of {labels} labels |"])


def write_card(out: Path, template: Path, model: AudioBertForMaskedLM, results: Results) -> None:
    """
    Writes a card with the figures that were measured.

    Raises:
        ValueError: no sound swap was answered.
    """
    findings = find(results)
    if findings.swap is None:
        raise ValueError("The runs have no answers to the sound swap, which the card begins with.")
    fields = {
        "PARTS": parts_table(model),
        "SOUND_SWAP": f"{swap_table(findings.swap).to_markdown()}\n\n{SWAP_NOTE}",
        "ACCURACY": accuracy_table(findings, paper_tables()["III"]).to_markdown(),
        "DETECTOR": detector_table(findings).to_markdown(),
        "VERDICT": "\n\n".join(verdict(findings)),
    }
    card = template.read_text(encoding="utf-8")
    for name, value in fields.items():
        card = card.replace(f"@{name}@", value)
    out.write_text(card, encoding="utf-8")


def write_repository(
    out: Path,
    trained: Path,
    start: Path,
    folders: Sequence[Path],
    reproduction: Path,
    results: Results,
    template: Path,
) -> None:
    """
    Args:
        out: the folder to write.
        trained: the checkpoint.
        start: what its training started from, with what is held out and the sound swap.
        folders: of the recordings.
        reproduction: the folder with the report of all runs.
        results: of the same runs, for the card.
        template: the card, with names between @ where figures go.
    """
    shutil.rmtree(out, ignore_errors=True)
    model = AudioBertForMaskedLM.from_pretrained(trained)
    save_halved(model, out)
    shutil.copy(start / HELD_OUT_FILE, out)
    shutil.copytree(start / SOUND_SWAP_FOLDER, out / SOUND_SWAP_FOLDER)
    write_attribution(out / "ATTRIBUTION.csv", model, folders)
    shutil.copytree(reproduction / "figures", out / "results" / "figures")
    for name in ("report.md", "results.json"):
        shutil.copy(reproduction / name, out / "results")
    write_card(out / "README.md", template, model, results)
