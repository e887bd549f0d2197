"""AudioBERT with the plain `Trainer`: python train_audiobert.py AUDIOBERT AUDITORYBENCH OUT"""

import sys

from transformers import Trainer, TrainingArguments

from audiobert import AudioBertForMaskedLM
from audiobert.data.auditorybench import load_auditorybench
from audiobert.data.batches import HearingCollator
from audiobert.hearing import audible_rows

start, data, out = sys.argv[1:]
model = AudioBertForMaskedLM.from_pretrained(start)
# Each span's recordings are looked up once; a batch gets their stored embeddings.
rows = audible_rows(model, load_auditorybench(data)["train"])
collator = HearingCollator.of(model)
args = TrainingArguments(
    out,
    num_train_epochs=20,
    per_device_train_batch_size=32,
    learning_rate=3e-4,
    lr_scheduler_type="cosine",
    warmup_steps=0.1,
    label_names=["labels"],
    remove_unused_columns=False,
)
Trainer(model, args, train_dataset=rows, data_collator=collator).train()
model.save_pretrained(out)
