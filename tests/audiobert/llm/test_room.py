"""A served model is asked for benchmarks and for evaluation: what asks it knows nothing of either."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from audiobert import llm

MODULES = sorted(Path(llm.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_served_model_needs_no_other_room(path: Path) -> None:
    rooms = {child.name for child in path.parents[1].iterdir() if (child / "__init__.py").is_file()}
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    above = {(node.module or name.name).split(".")[0] for node in imports if node.level > 1 for name in node.names}
    assert not above & rooms
    assert not any((node.module or "").startswith("audiobert") for node in imports)
