"""Settings for all tests: no network, one thread a process."""

import os

# Before any import of the libraries that read it. With a process a core, more threads would only be in the way.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
