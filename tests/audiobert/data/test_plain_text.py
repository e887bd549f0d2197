from __future__ import annotations

from pathlib import Path

import pytest

from audiobert.data.plain_text import read_passages, sample_passages


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_headings_and_short_lines_are_left_out_and_marks_undone(tmp_path: Path) -> None:
    text = (
        " \n = A <unk> = \n \n = = Part = = \n\n one two three four \n A well @-@ known 1 @,@ 000 @,@ 000 by <unk> . \n"
    )
    assert read_passages(write(tmp_path / "text", text)) == ["A well-known 1,000,000 by [UNK] ."]


def test_a_paragraph_that_only_begins_with_a_sign_is_no_heading(tmp_path: Path) -> None:
    assert read_passages(write(tmp_path / "text", "= is a sign of equality\n")) == ["= is a sign of equality"]


def test_paragraphs_are_cut_and_never_joined(tmp_path: Path) -> None:
    first, second = " ".join(f"a{number}" for number in range(16)), "b0 b1 b2 b3 b4 b5 b6"
    passages = read_passages(write(tmp_path / "text", f"{first}\n{second}\n"), words=6)
    # Of the first, four words are left over, of the second one.
    assert passages == ["a0 a1 a2 a3 a4 a5", "a6 a7 a8 a9 a10 a11", "b0 b1 b2 b3 b4 b5"]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("valid.txt", "test.txt", "notes.md"):
        write(tmp_path / name, f"five words stand in {name}\n")
    assert read_passages(tmp_path) == ["five words stand in test.txt", "five words stand in valid.txt"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfthis has a mark before\r\n")
    assert read_passages(tmp_path / "text") == ["this has a mark before"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no text at .*missing.txt"):
        read_passages(tmp_path / "missing.txt")
    with pytest.raises(FileNotFoundError, match=r"holds no \*.txt"):
        read_passages(tmp_path)
    with pytest.raises(ValueError, match="empty has no paragraph"):
        read_passages(write(tmp_path / "empty", " = Heading of a long text = \n"))
    (tmp_path / "latin").write_bytes("a caf\xe9 is a place to sit".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin is not UTF-8 \(byte 5\)"):
        read_passages(tmp_path / "latin")
    with pytest.raises(ValueError, match="cannot be 4"):
        read_passages(tmp_path / "latin", words=4)


def test_a_sample_is_the_same_for_a_seed_and_keeps_the_order() -> None:
    passages = [f"{number:03}" for number in range(100)]
    sample = sample_passages(passages, 10)
    assert sample == sample_passages(passages, 10) == sorted(set(sample))
    assert len(sample) == 10
    assert sample != sample_passages(passages, 10, seed=1)
    assert sample_passages(passages, 1000) == passages
    with pytest.raises(ValueError, match="count of 0"):
        sample_passages(passages, 0)
