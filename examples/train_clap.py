"""CLAP on recordings and their labels: python train_clap.py CLAP AUDIO_FOLDER OUT"""

import sys

from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

from audiobert.sounds.recordings import read_recordings
from audiobert.training.clap import CaptionedRecordings, clap_arguments, hold_out, train_clap
from audiobert.training.trainer import save_run

start, audio, out = sys.argv[1:]
model, tokenizer = ClapModel.from_pretrained(start), AutoTokenizer.from_pretrained(start)
extractor = ClapFeatureExtractor.from_pretrained(start)
train, held_out = (CaptionedRecordings(part, extractor) for part in hold_out(read_recordings(audio)))
args = clap_arguments(out, num_train_epochs=10)
scores = train_clap(model, tokenizer, train, held_out, args)
save_run(args, scores, model, tokenizer, extractor)
print(scores)
