"""What an LLM writes for a benchmark, and the rules that check it."""
