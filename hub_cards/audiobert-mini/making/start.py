"""What the trainings start from: the parts as one AudioBERT that has learned nothing yet, and the questions for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import set_seed

from audiobert import AudioBertForMaskedLM
from audiobert.evaluation.sound_swap.making import make_sound_swap
from audiobert.evaluation.sound_swap.questions import SOUND_SWAP_FOLDER
from audiobert.files import sha256_of
from audiobert.listening.held_out import HELD_OUT_FILE, HeldOut


def save_halved(model: AudioBertForMaskedLM, out: Path) -> None:
    """Saves a model in half of its size; `config.json` says float32, which is what it is loaded and computed in."""
    model.half().save_pretrained(out)
    path = out / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")


def save_start(
    out: Path,
    backbone: Path,
    ast: Path,
    knowledge_base: Path,
    held_out: Path,
    texts: Sequence[Path],
    config: Mapping[str, Any],
) -> None:
    """
    Saves an AudioBERT whose detector, adapter and map are untrained, with what is held out and the sound swap.

    Args:
        out: its folder.
        backbone, ast, knowledge_base: the parts.
        held_out: the list that the parts were trained by.
        texts: files of plain English that were trained on, which the config then names.
        config: fields of `AudioBertConfig` besides the defaults.
    """
    set_seed(0)
    shutil.rmtree(out, ignore_errors=True)
    trained_on = [{"name": f"{text.parent.name}/{text.name}", "sha256": sha256_of(text)} for text in texts]
    model = AudioBertForMaskedLM.from_backbones(
        backbone, ast, knowledge_base, dtype="float32", trained_on=trained_on, **config
    )
    sounds, tokenizer = model.knowledge_base, model.tokenizer
    if sounds is None or tokenizer is None:
        raise ValueError(f"{backbone} or {knowledge_base} is not whole: a tokenizer and a knowledge base are needed.")
    kept = HeldOut.load(held_out, sounds)
    save_halved(model, out)
    kept.save(out / HELD_OUT_FILE)
    make_sound_swap(sounds, kept, words=tokenizer.get_vocab()).save(out / SOUND_SWAP_FOLDER)
