"""Prompts through the stock fill-mask pipeline, and what was heard. No argument is needed."""

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

import audiobert  # registers the Auto classes

folder = str(audiobert.bundled("audiobert-tiny"))
prompts = ["Meow is the sound a [MASK] makes.", "The capital of [MASK] is an old city."]

fill = pipeline("fill-mask", model=folder)
for prompt, answers in zip(prompts, fill(prompts, top_k=3), strict=True):
    print(prompt, [(answer["token_str"], round(answer["score"], 3)) for answer in answers])

# The model itself also tells what it detected and retrieved.
model = AutoModelForMaskedLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    output = model(**tokenizer(prompts, return_tensors="pt", padding=True))
for prompt, spans in zip(prompts, output.spans, strict=True):
    print(prompt, [(span.text, span.recordings[0].label, span.recordings[0].id) for span in spans])
