"""Processes that compile librosa's functions at once do not disturb one another."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import audiobert
from audiobert.sounds import compiled
from audiobert.sounds.compiled import compiled_librosa, compiling_lock

fcntl = pytest.importorskip("fcntl", reason="no file locks on this system")
PACKAGE = Path(audiobert.__file__).parent


def is_free(lock: Path) -> bool:
    with open(lock, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_one_process_compiles_and_the_others_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    librosa = compiled_librosa()
    lock = tmp_path / "of-a-user" / "lock"
    seen = []
    monkeypatch.setattr(compiled, "compiling_lock", lambda: lock)
    for name in ("pyin", "yin"):
        monkeypatch.setattr(librosa, name, lambda *_, name=name, **__: seen.append((name, is_free(lock))))
    assert compiled_librosa.__wrapped__() is librosa
    assert seen == [("pyin", False), ("yin", False)]
    assert is_free(lock)


def test_a_process_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    librosa = compiled_librosa()
    monkeypatch.delattr(librosa, "pyin")
    assert compiled_librosa() is librosa


def test_the_processes_of_a_user_share_one_lock() -> None:
    assert compiling_lock() == compiling_lock() and compiling_lock().is_absolute()


def test_librosa_is_imported_in_no_other_way() -> None:
    importing = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(name.split(".")[0] == "librosa" for name in names):
                importing.append(path.relative_to(PACKAGE).as_posix())
    assert importing == ["sounds/compiled.py"]
