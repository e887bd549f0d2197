"""Recipes on the stock `transformers.Trainer`: the detector, CLAP, and AudioBERT itself."""
