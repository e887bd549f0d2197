"""Settings for all tests: no network, few threads."""

import os

# Before any import of the libraries that read it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
