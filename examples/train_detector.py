"""The span detector with the plain `Trainer`: python train_detector.py AUDIOBERT AUDITORYBENCH OUT"""

import sys

from transformers import Trainer, TrainingArguments

from audiobert import AudioBertForMaskedLM
from audiobert.data.auditorybench import load_auditorybench
from audiobert.data.batches import AudioBertDataCollator, tokenize_auditorybench

start, data, out = sys.argv[1:]
model = AudioBertForMaskedLM.from_pretrained(start)
rows = tokenize_auditorybench(load_auditorybench(data), model.tokenizer)
# Labels of spans alone: the model reads BERT's plain pass and looks nothing up.
rows = rows.select_columns(["input_ids", "attention_mask", "token_type_ids", "span_labels"])
args = TrainingArguments(out, num_train_epochs=5, per_device_train_batch_size=16, learning_rate=1e-3)
collator = AudioBertDataCollator(model.tokenizer)
Trainer(model, args, train_dataset=rows["train"], data_collator=collator).train()
model.save_pretrained(out)
