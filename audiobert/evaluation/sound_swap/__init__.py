"""The sound swap: questions that only who hears can answer, and what a model answers to them."""
