"""
Trains the bundled checkpoint `audiobert-tiny` from nothing, on two cores:

    python hub_cards/audiobert-tiny/make.py OUT --audio AUDIO --data AUDITORYBENCH --wikitext WIKITEXT

Every stage keeps its result in a folder of OUT and is skipped where that is there, so a run that was stopped goes on.
Nothing but train rows, WikiText and ESC recordings is ever trained on; dev, test and wiki rows are only scored.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from tokenizers import BertWordPieceTokenizer
from torch import nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    set_seed,
)

from audiobert import AudioBertForMaskedLM
from audiobert.data.auditorybench import FEATURES, MASK, load_auditorybench
from audiobert.data.plain_text import read_passages
from audiobert.data.variants import silent_rows, varied, varied_rows
from audiobert.evaluation.masked import evaluate_model
from audiobert.files import sha256_of
from audiobert.sounds.building import build_knowledge_base
from audiobert.sounds.features import ast_features
from audiobert.sounds.recordings import SourceRecording, read_recordings
from audiobert.training.adapter import audiobert_arguments, train_audiobert
from audiobert.training.arguments import recipe_arguments
from audiobert.training.clap import CaptionedRecordings, clap_arguments, make_captions, train_clap
from audiobert.training.detector import detector_arguments, train_detector
from audiobert.training.settings import digest_of_arrays, digest_of_json, digest_of_model, run_settings
from audiobert.training.trainer import RecipeTrainer, train_or_resume

SOURCES = ["ESC-10", "ESC-50"]
MAX_LENGTH = 128
WIKITEXT = ("valid.txt", "test.txt")


# --- text ------------------------------------------------------------------------------------------------------------


def train_tokenizer(out: Path, train: Dataset, passages: list[str]) -> None:
    """
    WordPiece on WikiText and the train sentences with their answers, small so that rare words come in known pieces;
    the words of the train answers are added whole, so that an answer is one token where it can be.
    """
    sentences = [row["sentence"].replace(MASK, row["answer"]) for row in train]
    trainer = BertWordPieceTokenizer(lowercase=True)
    text = [passage.replace("[UNK]", " ") for passage in passages] + sentences
    trainer.train_from_iterator(text, vocab_size=4000, min_frequency=2, show_progress=False)
    vocabulary = sorted(trainer.get_vocab(), key=trainer.get_vocab().get)
    words = {word for row in train for word in re.findall(r"\w+", row["answer"].lower()) if word.isascii()}
    vocabulary += sorted(words - set(vocabulary))
    tokenizer = BertTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)},
        do_lower_case=True,
        model_max_length=MAX_LENGTH,
    )
    tokenizer.save_pretrained(out)


# --- BERT ------------------------------------------------------------------------------------------------------------


class MaskedText(torch.utils.data.Dataset):
    """
    Train rows, varied anew each epoch, and another tenth of the passages each epoch. A row's answer is marked, as it is
    masked most often.
    """

    def __init__(self, rows: list[dict], passages: list[str], tokenizer: BertTokenizer, seed: int) -> None:
        self.rows = rows
        self.tokenizer = tokenizer
        self.seed = seed
        self.epoch = 0
        self.passages = tokenizer(passages, truncation=True, max_length=MAX_LENGTH)["input_ids"]

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows) + len(self.passages) // 10

    def __getitem__(self, index: int) -> dict[str, list]:
        if index >= len(self):
            raise IndexError(index)
        if index >= len(self.rows):
            number = index - len(self.rows) + self.epoch * (len(self.passages) // 10)
            ids = self.passages[number % len(self.passages)]
            return {"input_ids": ids, "is_answer": [False] * len(ids)}
        row = varied(self.rows[index], random.Random(f"{self.seed} {self.epoch} {index}"), swap=0.4, otherwise=0.3)
        before, after = row["sentence"].split(MASK, 1)
        parts = [self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, row["answer"], after)]
        ids = [self.tokenizer.cls_token_id, *parts[0], *parts[1], *parts[2], self.tokenizer.sep_token_id]
        start = 1 + len(parts[0])
        is_answer = [start <= place < start + len(parts[1]) for place in range(len(ids))]
        return {"input_ids": ids[:MAX_LENGTH], "is_answer": is_answer[:MAX_LENGTH]}


class MaskingCollator:
    """
    Masks answers whole with probability `answer`, and other tokens with `noise`; where no answer is masked, 15 % of the
    tokens, of which 80 % become the mask and 10 % another token, as BERT has it.
    """

    def __init__(self, tokenizer: BertTokenizer, answer: float, noise: float) -> None:
        self.tokenizer = tokenizer
        self.answer = answer
        self.noise = noise
        self.special = torch.tensor(tokenizer.all_special_ids)

    def __call__(self, rows: list[dict[str, list]]) -> dict[str, torch.Tensor]:
        ids, is_answer = (
            nn.utils.rnn.pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=fill)
            for name, fill in (("input_ids", self.tokenizer.pad_token_id), ("is_answer", False))
        )
        asked = is_answer.any(1, keepdim=True) & (torch.rand(len(ids), 1) < self.answer)
        answers = is_answer & asked
        chance = torch.where(asked, self.noise, 0.15)
        others = (torch.rand(ids.shape) < chance) & ~torch.isin(ids, self.special) & ~answers
        labels = ids.masked_fill(~(answers | others), -100)
        fate = torch.rand(ids.shape)
        masked = ids.masked_fill(answers | (others & (fate < 0.8)), self.tokenizer.mask_token_id)
        random_ids = torch.randint(len(self.tokenizer), ids.shape)
        masked = torch.where(others & (fate >= 0.9), random_ids, masked)
        return {
            "input_ids": masked,
            "attention_mask": (ids != self.tokenizer.pad_token_id).long(),
            "labels": labels,
            "is_answer": answers,
        }


class MaskedLMTrainer(RecipeTrainer):
    """Scores the vocabulary at the masks alone, and lets an answer weigh as much as several other words."""

    answer_weight = 5.0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, is_answer = inputs.pop("labels"), inputs.pop("is_answer")
        masked = labels != -100
        logits = model.cls(model.bert(**inputs).last_hidden_state[masked])
        losses = nn.functional.cross_entropy(logits, labels[masked], label_smoothing=0.05, reduction="none")
        weights = torch.where(is_answer[masked], self.answer_weight, 1.0)
        return (losses * weights).sum() / weights.sum()


def new_bert(tokenizer: BertTokenizer) -> BertForMaskedLM:
    """A small BERT with random weights."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=MAX_LENGTH,
        # Wider than BERT's 0.02, with which a small post-norm model hardly leaves the start.
        initializer_range=0.06,
        pad_token_id=tokenizer.pad_token_id,
    )
    return BertForMaskedLM(config)


def train_bert(
    out: Path,
    work: Path,
    train: Dataset,
    passages: list[str],
    start: Path | None,
    repeats: dict[str, int],
    epochs: int,
    learning_rate: float,
) -> None:
    """Masked language modelling, from `start` or from nothing; rows of a task come `repeats` times an epoch."""
    tokenizer = BertTokenizer.from_pretrained(work / "tokenizer")
    set_seed(0)
    model = new_bert(tokenizer) if start is None else BertForMaskedLM.from_pretrained(start)
    rows = [row for task, count in repeats.items() for _ in range(count) for row in train if row["task"] == task]
    dataset = MaskedText(rows, passages, tokenizer, seed=0 if start is None else 1)
    args = recipe_arguments(
        out.with_name(f"{out.name}-run"),
        num_train_epochs=epochs,
        batch_size=26,
        train_sampling_strategy="group_by_length",
        learning_rate=learning_rate,
        weight_decay=0.05,
        adam_beta2=0.98,
        warmup_steps=0.1,
        lr_scheduler_type="linear",
        eval_strategy="no",
        seed=0,
    )
    trainer = MaskedLMTrainer(model, args, MaskingCollator(tokenizer, answer=0.9, noise=0.1), dataset)
    data = digest_of_json([rows, passages])
    train_or_resume(trainer, run_settings("bert", args, model=digest_of_model(model, tokenizer), data=data))
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


# --- sound -----------------------------------------------------------------------------------------------------------


class Sounds(torch.utils.data.Dataset):
    """Recordings as AST reads them, their labels, and how high they sound: centre, spread and peak of the spectrum."""

    def __init__(self, recordings: list[SourceRecording], extractor: ASTFeatureExtractor) -> None:
        names = sorted({recording.label for recording in recordings})
        self.labels = torch.tensor([names.index(recording.label) for recording in recordings])
        self.values = torch.stack([torch.from_numpy(ast_features(extractor, item.open())) for item in recordings])
        power = (self.values.double() * 2 * extractor.std + extractor.mean).exp().sum(1) + 1e-9
        bins = torch.arange(extractor.num_mel_bins, dtype=torch.double)
        centre = (power * bins).sum(1) / power.sum(1)
        spread = (power * (bins - centre[:, None]) ** 2).sum(1).div(power.sum(1)).sqrt()
        measures = torch.stack([centre, spread, power.argmax(1).double(), power.sum(1).log()], dim=1)
        self.measures = ((measures - measures.mean(0)) / measures.std(0)).float()

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """The recording begins anywhere, and loses a band of pitches and a stretch of time."""
        frames, bins = self.values[index].shape
        values = self.values[index].roll(int(torch.randint(frames, ())), 0)
        band, stretch = int(torch.randint(bins // 5, ())), int(torch.randint(frames // 5, ()))
        low, start = int(torch.randint(bins - band, ())), int(torch.randint(frames - stretch, ()))
        values[:, low : low + band] = values.mean()
        values[start : start + stretch] = values.mean()
        return {"input_values": values, "labels": self.labels[index], "measures": self.measures[index]}


class SoundPupil(nn.Module):
    """AST with the two heads that it learns by: what a recording is, and how high it sounds, from the mean state."""

    def __init__(self, ast: ASTModel, labels: int, measures: int) -> None:
        super().__init__()
        self.ast = ast
        self.label_head = nn.Linear(ast.config.hidden_size, labels)
        self.measure_head = nn.Linear(ast.config.hidden_size, measures)

    def forward(self, input_values: torch.Tensor, labels: torch.Tensor, measures: torch.Tensor) -> dict:
        state = self.ast(input_values).last_hidden_state.mean(1)
        loss = nn.functional.cross_entropy(self.label_head(state), labels, label_smoothing=0.1)
        return {"loss": loss + nn.functional.mse_loss(self.measure_head(state), measures)}


def train_ast(out: Path, work: Path, recordings: list[SourceRecording]) -> None:
    """A small AST that hears 5 s at 16 kHz in 128 patches."""
    extractor = ASTFeatureExtractor(num_mel_bins=64, max_length=512)
    dataset = Sounds(recordings, extractor)
    set_seed(0)
    config = ASTConfig(
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        hidden_dropout_prob=0.1,
        frequency_stride=16,
        time_stride=16,
        max_length=extractor.max_length,
        num_mel_bins=extractor.num_mel_bins,
    )
    pupil = SoundPupil(ASTModel(config), len(dataset.labels.unique()), dataset.measures.shape[1])
    args = recipe_arguments(
        work / "ast-run",
        num_train_epochs=45,
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.05,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        eval_strategy="no",
        seed=0,
    )
    data = digest_of_arrays({"values": values} for values in dataset.values)
    settings = run_settings("ast", args, model=digest_of_model(pupil), data=data, labels=dataset.labels.tolist())
    train_or_resume(RecipeTrainer(pupil, args, train_dataset=dataset), settings)
    pupil.ast.half().save_pretrained(out)
    extractor.save_pretrained(out)


def train_small_clap(out: Path, work: Path, recordings: list[SourceRecording], train: Dataset) -> None:
    """A small CLAP on labels and on what the train rows call these sounds, with BERT's vocabulary."""
    tokenizer = BertTokenizer.from_pretrained(work / "tokenizer")
    extractor = ClapFeatureExtractor(
        sampling_rate=16000,
        max_length_s=5,
        # 256 frames, the width of the audio tower's input.
        hop_length=313,
        frequency_min=50,
        frequency_max=8000,
        truncation="rand_trunc",
    )
    set_seed(0)
    text = ClapTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    audio = ClapAudioConfig(
        spec_size=128,
        patch_size=8,
        patch_stride=[8, 8],
        patch_embeds_hidden_size=64,
        hidden_size=128,
        depths=[2, 2],
        num_hidden_layers=2,
        num_attention_heads=[4, 8],
        window_size=4,
        mlp_ratio=2.0,
        hidden_dropout_prob=0.0,
    )
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=64, logit_scale_init_value=10.0))
    captions = make_captions([recording.label for recording in recordings], train)
    dataset = CaptionedRecordings(recordings, extractor, captions)
    args = clap_arguments(work / "clap-run", num_train_epochs=45, batch_size=32, weight_decay=0.05, eval_strategy="no")
    print("CLAP, on what it learned from:", train_clap(model, tokenizer, dataset, dataset, args), flush=True)
    for part in (model.half(), tokenizer, extractor):
        part.save_pretrained(out)


# --- the whole -------------------------------------------------------------------------------------------------------


def stage(out: Path, make: Callable[[Path], None]) -> None:
    """Runs `make` unless its result is there; a result is moved to its place when it is whole."""
    if out.exists():
        return
    start = time.perf_counter()
    unfinished = out.with_name(out.name + ".unfinished")
    make(unfinished)
    unfinished.rename(out)
    print(f"{out.name}: {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)


def train_one(out: Path, work: Path, rows: DatasetDict, audio: str, seed: int) -> None:
    """AudioBERT (`audio` is "cached") or its text-only control ("none") on the detector's model."""
    model = AudioBertForMaskedLM.from_pretrained(work / "detector")
    set_seed(seed)
    args = audiobert_arguments(
        work / f"{audio}-{seed}-run",
        num_train_epochs=2,
        learning_rate=5e-4,
        weight_decay=0.01,
        train_sampling_strategy="group_by_length",
        seed=seed,
    )
    train_audiobert(model, rows, args, audio=audio)
    # Half of the size; `config.json` says float32, which is what it is loaded and computed in.
    model.half().save_pretrained(out)
    path = out / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")


def score(out: Path, checkpoint: Path, bench: DatasetDict, **modes: str) -> None:
    """The scores of a saved checkpoint, as it is loaded."""
    model = AudioBertForMaskedLM.from_pretrained(checkpoint)
    out.write_text(evaluate_model(model, model.tokenizer, bench, batch_size=64, **modes).to_json(), encoding="utf-8")


COLUMNS = [(task, split) for task in ("animal", "pitch") for split in ("dev", "test", "wiki")]


def percentages(files: list[Path], field: str) -> list[list[float]]:
    """For each column of the results the percentages of several score files."""
    runs = [json.loads(file.read_text(encoding="utf-8"))["scores"] for file in files]
    return [[100 * run[split][task][field] for run in runs] for task, split in COLUMNS]


def results_table(work: Path, seeds: int) -> str:
    """Markdown: accuracy, mean and standard deviation over seeds, and the detector's F1."""
    audio, control = ([work / f"{kind}-{seed}-scores.json" for seed in range(seeds)] for kind in ("cached", "none"))
    rows = {
        "AudioBERT": percentages(audio, "accuracy"),
        "text-only control": percentages(control, "accuracy"),
        "the BERT inside (audio off)": percentages([work / "off-scores.json"], "accuracy"),
        "detector, token F1": percentages(audio[:1], "span_f1"),
        "detector, token F1, all rows": percentages(audio[:1], "span_f1_all_rows"),
        "detector, exact-span F1": percentages(audio[:1], "span_exact_f1"),
    }
    lines = ["| | " + " | ".join(f"{task} {split}" for task, split in COLUMNS) + " |", "|---" * 7 + "|"]
    for name, columns in rows.items():
        spreads = [f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "" for values in columns]
        cells = [f"{statistics.mean(values):.2f}{spread}" for values, spread in zip(columns, spreads, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def what_audio_adds(work: Path, seeds: int) -> str:
    """A sentence: accuracy with audio less that of the control of the same seed, column by column."""
    audio, control = (
        percentages([work / f"{kind}-{seed}-scores.json" for seed in range(seeds)], "accuracy")
        for kind in ("cached", "none")
    )
    gains = []
    for (task, split), with_audio, without in zip(COLUMNS, audio, control, strict=True):
        differences = [a - b for a, b in zip(with_audio, without, strict=True)]
        spread = f" ± {statistics.stdev(differences):.2f}" if seeds > 1 else ""
        gains.append(f"{task} {split} {statistics.mean(differences):+.2f}{spread}")
    return f"AudioBERT less its control, seed by seed, in points: {', '.join(gains)}."


def false_alarms(work: Path) -> str:
    """How often the detector hears something in plain text."""
    scores = json.loads((work / "plain-scores.json").read_text(encoding="utf-8"))["scores"]["plain"]["plain"]
    return f"{scores['rows_detected']} of {scores['rows']}"


def attribution(out: Path, audio: Path, recordings: list[SourceRecording]) -> None:
    """Who made each recording, out of ESC-50's own list."""
    text = (audio / "ESC-50-ATTRIBUTION.txt").read_text(encoding="utf-8")
    clips = dict(re.findall(r"^- \[(\S+)\.ogg\]:\s+(.*)$", text, re.MULTILINE))
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "source", "license", "attribution"])
        for recording in recordings:
            # ESC-50 adds the number of the class to the name of a clip.
            clip = re.sub(r"(-\d+)?\.ogg$", "", Path(recording.id).name)
            writer.writerow([recording.id, recording.source, recording.license, clips[clip]])


def parts_table(folder: Path) -> str:
    """Markdown: how large each part of a checkpoint is."""
    model = AudioBertForMaskedLM.from_pretrained(folder)
    count = {"BERT": 0, "LoRA": 0}
    for name, parameter in model.text_model.named_parameters():
        count["LoRA" if "lora_" in name else "BERT"] += parameter.numel()
    for name, part in (("AST", model.audio_model), ("detector", model.detector), ("audio map", model.audio_projection)):
        count[name] = sum(parameter.numel() for parameter in part.parameters())
    sounds = model.knowledge_base
    count["CLAP's text tower"] = sum(parameter.numel() for parameter in sounds.query_encoder.model.parameters())
    lines = [f"| {name} | {number / 1e6:.2f} M parameters |" for name, number in count.items()]
    return "\n".join([*lines, f"| knowledge base | {len(sounds)} recordings |"])


def finish(out: Path, work: Path, audio: Path, recordings: list[SourceRecording], seeds: int) -> None:
    """The Hub repository: the first seed's checkpoint, its card and the attribution of its recordings."""
    shutil.copytree(work / "cached-0", out)
    attribution(out / "ATTRIBUTION.csv", audio, recordings)
    card = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    fields = {
        "PARTS": parts_table(out),
        "SEEDS": str(seeds),
        "RESULTS": results_table(work, seeds),
        "VERDICT": what_audio_adds(work, seeds),
        "FALSE_ALARMS": false_alarms(work),
    }
    for name, value in fields.items():
        card = card.replace(f"@{name}@", value)
    (out / "README.md").write_text(card, encoding="utf-8")


def train_tiny_detector(out: Path, work: Path, bench: DatasetDict, passages: list[str], wikitext: Path) -> None:
    """The detector; animal rows, whose spans are harder to tell, count twice, and plain sentences teach it silence."""
    set_seed(0)
    model = AudioBertForMaskedLM.from_backbones(
        work / "bert-again",
        work / "ast",
        work / "knowledge-base",
        dtype="float32",
        detector_hidden_size=128,
        detector_num_layers=2,
        trained_on=[{"name": f"wikitext-2/{name}", "sha256": sha256_of(wikitext / name)} for name in WIKITEXT],
    )
    train = bench["train"]
    rows = list(train) + [row for row in train if row["task"] == "animal"] + silent_rows(passages)
    args = detector_arguments(
        work / "detector-run",
        num_train_epochs=6,
        batch_size=48,
        learning_rate=1.5e-3,
        weight_decay=0.01,
        train_sampling_strategy="group_by_length",
        seed=0,
    )
    train_detector(model, DatasetDict({**bench, "train": Dataset.from_list(rows, features=FEATURES)}), args)
    model.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--audio", type=Path, required=True, help="recordings with metadata.csv")
    parser.add_argument("--data", type=Path, required=True, help="AuditoryBench's CSV files")
    parser.add_argument("--wikitext", type=Path, required=True, help="WikiText-2's valid.txt and test.txt")
    parser.add_argument(
        "--seeds", type=int, default=1, help="seeds of AudioBERT and its control; the first is the checkpoint"
    )
    parser.add_argument("--until", choices=["bert", "knowledge-base"], help="stop after this stage")
    arguments = parser.parse_args()
    work = arguments.out
    work.mkdir(parents=True, exist_ok=True)
    bench = load_auditorybench(arguments.data)
    train = bench["train"]
    passages = [passage for name in WIKITEXT for passage in read_passages(arguments.wikitext / name)]
    recordings = read_recordings(arguments.audio, SOURCES)

    stage(work / "tokenizer", lambda out: train_tokenizer(out, train, passages))
    if arguments.until != "knowledge-base":
        # Pitch is harder to learn than animals, so its rows come twice at first; then all rows twice.
        bert, again = work / "bert", work / "bert-again"
        text = (work, train, passages)
        stage(bert, lambda out: train_bert(out, *text, None, {"animal": 1, "pitch": 2}, 20, 7e-4))
        stage(again, lambda out: train_bert(out, *text, bert, {"animal": 2, "pitch": 2}, 6, 4e-4))
    if arguments.until == "bert":
        return
    stage(work / "ast", lambda out: train_ast(out, work, recordings))
    stage(work / "clap", lambda out: train_small_clap(out, work, recordings, train))
    stage(
        work / "knowledge-base",
        lambda out: build_knowledge_base(arguments.audio, out, clap=work / "clap", ast=work / "ast", sources=SOURCES),
    )
    if arguments.until == "knowledge-base":
        return
    # The detector never sees every tenth passage: there its false alarms are counted.
    held_out = passages[::10]
    seen = [passage for number, passage in enumerate(passages) if number % 10]
    stage(work / "detector", lambda out: train_tiny_detector(out, work, bench, seen, arguments.wikitext))
    plain = DatasetDict({"plain": Dataset.from_list(silent_rows(held_out), features=FEATURES)})
    stage(work / "plain-scores.json", lambda out: score(out, work / "detector", plain))
    rows = DatasetDict({**bench, "train": varied_rows(train, seed=0)})
    for seed in range(arguments.seeds):
        for audio in ("cached", "none"):
            name = f"{audio}-{seed}"
            stage(work / name, lambda out, audio=audio, seed=seed: train_one(out, work, rows, audio, seed))
            stage(work / f"{name}-scores.json", lambda out, name=name: score(out, work / name, bench))
    stage(work / "off-scores.json", lambda out: score(out, work / "cached-0", bench, audio="off"))
    stage(work / "audiobert-tiny", lambda out: finish(out, work, arguments.audio, recordings, arguments.seeds))
    print(results_table(work, arguments.seeds), what_audio_adds(work, arguments.seeds), sep="\n\n")


if __name__ == "__main__":
    main()
