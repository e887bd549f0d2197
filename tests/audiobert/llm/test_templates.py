"""Templates: what a user may put into a file of their own, and what is told them about a wrong one."""

from pathlib import Path

import pytest

from audiobert.llm.templates import fill, load_template


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_placeholders_are_filled_wherever_they_stand(tmp_path: Path) -> None:
    template = load_template(written(tmp_path, "{{title}}: {{ tags }}. Again {{title}}\n\n"), ("title", "tags"))
    assert fill(template, {"title": "Dog", "tags": "bark, outside"}) == "Dog: bark, outside. Again Dog"


def test_a_value_is_text_whatever_it_looks_like(tmp_path: Path) -> None:
    template = load_template(written(tmp_path, "{{title}} {{tags}}"), ("title", "tags"))
    assert fill(template, {"title": "{{tags}}", "tags": r"\1 \g<0> {{title}}"}) == r"{{tags}} \1 \g<0> {{title}}"


def test_braces_that_are_no_placeholder_stay(tmp_path: Path) -> None:
    template = load_template(written(tmp_path, '{"a": {"b": {{title}} }} }'), ("title",))
    assert fill(template, {"title": "1"}) == '{"a": {"b": 1 }} }'


def test_a_template_as_windows_saves_it(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes("\ufeffTitle:\r\n{{title}}\r\n".encode())
    assert load_template(tmp_path / "mine.txt", ("title",)) == "Title:\n{{title}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{title}}", r"mine.txt lacks \{\{tags\}\}"),
        ("", r"mine.txt lacks \{\{tags\}\}, \{\{title\}\}"),
        ("{title} {{tags}}", r"lacks \{\{title\}\}"),
        ("{{title}} {{tags}} {{titel}}", r"mine.txt has unknown \{\{titel\}\}; known are \{\{tags\}\}, \{\{title\}\}"),
        ("{{title}} {{tags}} {{}}", r"unknown \{\{\}\}"),
    ],
)
def test_a_template_with_wrong_placeholders(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_template(written(tmp_path, text), ("title", "tags"))


def test_a_template_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.txt"):
        load_template(tmp_path / "nowhere.txt", ())
    (tmp_path / "latin.txt").write_bytes("schön".encode("latin-1"))
    with pytest.raises(ValueError, match="latin.txt is no UTF-8 text"):
        load_template(tmp_path / "latin.txt", ())
