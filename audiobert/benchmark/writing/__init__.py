"""What an LLM writes for a benchmark, and the rules that check it."""

from pathlib import Path

# The instructions to the LLM, and the list of answers that no prompt may have.
TEMPLATES = Path(__file__).with_name("templates")
