"""
Speed of `evaluate_model` against one prompt at a time through `pipeline("fill-mask")`, with the answers of both
compared: `python tests/benchmarks/evaluation.py AUDITORYBENCH [MODEL] [--rows N] [--json FILE]`.

The rows are spread evenly over all eight files. Both sides run in turn in one process, so that what else the machine
does falls on both; each reads the same rows in each round, after one round that does not count. So an AudioBERT has
looked up all spans before: a lookup costs both sides the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from datasets import DatasetDict
from transformers import FillMaskPipeline

from audiobert import bundled
from audiobert.data.auditorybench import MASK, PITCH_ANSWERS, SPLITS, load_auditorybench
from audiobert.evaluation.masked import evaluate_model
from audiobert.language_models.masked import load_masked

# Pitch answers whose probabilities are nearer than this can change places with the shape of the batch.
CLOSE = 1e-5


def sample(dataset: DatasetDict, rows: int) -> DatasetDict:
    """About `rows` rows, as large a share of each file as of the others."""
    step = max(1, sum(len(part) for part in dataset.values()) // rows)
    return DatasetDict({name: part.select(range(0, len(part), step)) for name, part in dataset.items()})


def ask_one_by_one(pipeline: FillMaskPipeline, dataset: DatasetDict) -> list[tuple[str, bool]]:
    """The predicted answers in the order of `SPLITS`, and whether each was too close to call."""
    tokenizer, answered = pipeline.tokenizer, []
    for split in SPLITS:
        for row in dataset[split].to_list():
            pieces = tokenizer(row["answer"], add_special_tokens=False)["input_ids"]
            prompt = row["sentence"].replace(MASK, " ".join([tokenizer.mask_token] * len(pieces)))
            if row["task"] == "pitch":
                best, second = pipeline(prompt, targets=list(PITCH_ANSWERS))
                answered.append((best["token_str"].strip(), best["score"] - second["score"] < CLOSE))
                continue
            masks = pipeline(prompt, top_k=2)
            masks = masks if isinstance(masks[0], list) else [masks]
            known = [[guess for guess in guesses if guess["token"] != tokenizer.unk_token_id] for guesses in masks]
            close = any(len(guesses) == 2 and guesses[0]["score"] - guesses[1]["score"] < CLOSE for guesses in masks)
            answered.append((tokenizer.decode([guesses[0]["token"] for guesses in known]).strip(), close))
    return answered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of AuditoryBench's CSV files")
    parser.add_argument("model", nargs="?", default=str(bundled()), help="a folder or a Hub id; the bundled checkpoint")
    parser.add_argument("--rows", type=int, default=400, help="rows in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()

    model, tokenizer = load_masked(arguments.model)
    dataset = sample(load_auditorybench(arguments.data), arguments.rows)
    pipeline = FillMaskPipeline(model=model, tokenizer=tokenizer)
    seconds: list[tuple[float, float]] = []
    for _ in range(1 + arguments.rounds):
        start = time.perf_counter()
        result = evaluate_model(
            model, tokenizer, dataset, splits=SPLITS, batch_size=arguments.batch_size, progress=False
        )
        between = time.perf_counter()
        one_by_one = ask_one_by_one(pipeline, dataset)
        seconds.append((between - start, time.perf_counter() - between))
    differing = [
        (row.sentence, row.predicted, answer)
        for row, (answer, close) in zip(result.rows, one_by_one, strict=True)
        if row.predicted != answer and not close
    ]
    figures = {
        "rows": len(result.rows),
        "rounds": arguments.rounds,
        "threads": torch.get_num_threads(),
        "evaluate_model_seconds": statistics.median(ours for ours, _ in seconds[1:]),
        "one_by_one_seconds": statistics.median(theirs for _, theirs in seconds[1:]),
        "ratio": statistics.median(theirs / ours for ours, theirs in seconds[1:]),
        "aim": 10,
        "differing_answers": len(differing),
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if differing:
        sys.exit("\n".join(map(repr, differing[:10])))


if __name__ == "__main__":
    main()
