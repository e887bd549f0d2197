"""Processes that train together share one batch, and one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from audiobert import AudioBertForMaskedLM
from audiobert.training.clap import contrastive_loss

from audio_fixtures import write_recordings

SCRIPT = """
import runpy, sys
from pathlib import Path

import torch
from accelerate import PartialState

for command in (
    ["train", "audiobert", "--model", "{start}", "--data", "{bench}"],
    ["train-detector", "detector", "--model", "{start}", "--data", "{bench}"],
    ["train-clap", "{recordings}", "clap", "--clap", "{clap}"],
):
    sys.argv = ["audiobert", *command, "--max-steps", "2", "--batch-size", "4"]
    try:
        runpy.run_module("audiobert", run_name="__main__")
    except SystemExit as exit:
        assert not exit.code, f"{{command[0]}} exits with {{exit.code}}"

# One process's half of a batch of four, and the gradient that it gets for it.
from audiobert.training.clap import _of_all_processes, contrastive_loss

state = PartialState()
assert state.num_processes == 2

# Rows that are drawn anew in each epoch are told of it in every process.
from audiobert.training.arguments import recipe_arguments
from audiobert.training.trainer import RecipeTrainer

class Rows(torch.utils.data.Dataset):
    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 4

    def __getitem__(self, place):
        return {{"x": torch.tensor([float(self.epoch)])}}

class Model(torch.nn.Linear):
    def forward(self, x):
        seen.update(x[:, 0].tolist())
        return {{"loss": super().forward(x).sum()}}

seen = set()
args = recipe_arguments("epochs", 2, num_train_epochs=3, save_strategy="no", eval_strategy="no")
RecipeTrainer(model=Model(1, 1), args=args, train_dataset=Rows()).train()
assert seen == {{0.0, 1.0, 2.0}}, f"process {{state.process_index}} was in the epochs {{seen}}"

half = slice(2 * state.process_index, 2 * state.process_index + 2)
embeds = [torch.eye(4)[half].add(number).requires_grad_() for number in (0.1, 0.2)]
texts, audio = map(_of_all_processes, embeds)
contrastive_loss(texts, audio, 2.0, 3.0).backward()
torch.save([value.grad for value in embeds], f"gradients-{{state.process_index}}.pt")
state.wait_for_everyone()
torch.distributed.destroy_process_group()
"""


@pytest.mark.processes
def test_two_processes_train_together(start: Path, bench: Path, clap_folder: Path, tmp_path: Path) -> None:
    rows = [{"file_name": f"{number}.wav", "label": ("dog", "cat")[number % 2]} for number in range(8)]
    recordings = write_recordings(tmp_path / "recordings", rows)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(start=start, bench=bench, recordings=recordings, clap=clap_folder))
    # What `accelerate launch` starts where there are several GPUs.
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("audiobert", "detector", "clap"):
        settings = json.loads((tmp_path / name / "training.json").read_text())
        assert settings["arguments"]["batch_size"] == 4
        assert (tmp_path / name / "scores.json").is_file() and not (tmp_path / name / "checkpoints").exists()
        assert done.stdout.count(f"saved to {name}") == 1
    assert AudioBertForMaskedLM.from_pretrained(tmp_path / "audiobert").knowledge_base is not None

    embeds = [torch.eye(4).add(number).requires_grad_() for number in (0.1, 0.2)]
    contrastive_loss(*embeds, 2.0, 3.0).backward()
    halves = [torch.load(tmp_path / f"gradients-{number}.pt") for number in range(2)]
    for whole, *parts in zip(embeds, *halves, strict=True):
        # The gradients of parameters are then averaged over the two.
        torch.testing.assert_close(torch.cat(parts) / 2, whole.grad)
