"""A language model behind an OpenAI-compatible server: what it is asked, and what it answered."""
