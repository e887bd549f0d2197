"""The human filter: what the sheet holds, that no text breaks out of the page, and that decisions come back."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from audiobert.benchmark.people.review import read_decisions, write_review
from audiobert.benchmark.people.sheets import original_cell, plain_cell, read_sheet, row_id

HOSTILE = '</script><script>alert("1")</script> <!-- <b>&amp; [MASK], "quoted"\nand a second line é'


def row(sentence: str, answer: str = "dog", span: str = "woof", **more: object) -> dict:
    return {
        "recordings": ["a/1", "b/2"],
        "task": "animal",
        "sentence": sentence,
        "answer": answer,
        "spans": [span],
        "category": "animal/dog",
        "refusal": None,
        **more,
    }


ROWS = [row(f"Woof number {number} is the sound a [MASK] makes.") for number in range(4)]


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def fill_in(path: Path, words: list[str], comments: list[str] | None = None, delimiter: str = ",") -> Path:
    """Fills in the first lines of a sheet, as a spreadsheet saves it."""
    lines = read_csv(path)
    for line, word, comment in zip(lines, words, comments or [""] * len(words), strict=False):
        line.update(keep=word, comment=comment)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(lines)
    return path


class Scripts(HTMLParser):
    """The content of each script element of a page, and the addresses that it names."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.addresses: list[str | None] = []
        self.inside = False
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action")]
        if tag == "script":
            self.inside = True
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self.inside:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def test_the_sheet_says_what_there_is_to_decide(tmp_path: Path) -> None:
    sheet, _ = write_review(ROWS, tmp_path / "new" / "folder")
    lines = read_csv(sheet)
    assert list(lines[0]) == ["id", "sentence", "answer", "span", "category", "recordings", "keep", "comment"]
    assert [line["sentence"] for line in lines] == [row["sentence"] for row in ROWS]
    first = lines[0]
    assert (first["answer"], first["span"], first["category"]) == ("dog", "woof", "animal/dog")
    assert (first["recordings"], first["keep"], first["comment"]) == ("a/1; b/2", "", "")


def test_the_page_holds_the_rows_of_the_csv_and_no_text_breaks_out_of_it(tmp_path: Path) -> None:
    rows = [row(HOSTILE, "<img src=x onerror=alert(2)>", "<b>", category=None), *ROWS]
    sheet, page = write_review(rows, tmp_path)
    content = Scripts(page)
    # The data and the page's own script, whatever the data says; nothing is fetched from anywhere.
    assert [attributes.get("type") for attributes, _ in content.scripts] == ["application/json", None]
    assert content.addresses == []
    assert "default-src 'none'" in page.read_text(encoding="utf-8")
    data = json.loads(content.scripts[0][1])
    columns = [*data["columns"], *data["to_fill_in"]]
    assert [{column: row.get(column, "") for column in columns} for row in data["rows"]] == read_csv(sheet)
    assert data["rows"][0]["sentence"] == HOSTILE
    assert data["spans"][0] == ["<b>"]


def test_decisions_come_back(tmp_path: Path) -> None:
    rows = [row(HOSTILE), *ROWS]
    sheet, _ = write_review(rows, tmp_path)
    reviewed, counts = read_decisions(fill_in(sheet, ["yes", "no", "", "yes"], ["", "no such sound", "", "ok"]), rows)
    assert counts == {"kept": 2, "dropped": 1, "undecided": 2}
    assert [row["refusal"] for row in reviewed] == [
        None,
        "dropped in the review",
        "not reviewed",
        None,
        "not reviewed",
    ]
    assert reviewed[0] == rows[0]
    assert reviewed[1] == {**rows[1], "refusal": "dropped in the review", "detail": "no such sound"}


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "''-1", "'tis", "1=1", "", "\n=1"]


def test_no_cell_is_a_formula_for_a_spreadsheet_and_all_come_back(tmp_path: Path) -> None:
    """Neither what an LLM wrote nor what a person comments."""
    rows = [row(f"{formula} [MASK]", answer=f"{formula}dog", category=formula) for formula in FORMULAS]
    sheet, _ = write_review(rows, tmp_path)
    assert [cell for line in read_csv(sheet) for cell in line.values() if cell[:1] in tuple("=+-@\t\r\n")] == []
    comments = [f"{formula} no" for formula in FORMULAS]
    reviewed, _ = read_decisions(fill_in(sheet, ["no"] * len(rows), comments), rows)
    assert [row["answer"] for row in reviewed] == [row["answer"] for row in rows]
    write_review(rows, tmp_path)
    assert [cell for line in read_csv(sheet) for cell in line.values() if cell[:1] in tuple("=+-@\t\r\n")] == []
    for text in (*FORMULAS, *map(plain_cell, FORMULAS)):
        assert original_cell(plain_cell(text)) == text
    read = [line["category"] for _, line in read_sheet(sheet, ("category",))]
    assert read == FORMULAS


@pytest.mark.parametrize("word", ["yes", "Y", "1", "TRUE", " yes "])
def test_words_that_keep(tmp_path: Path, word: str) -> None:
    sheet, _ = write_review(ROWS[:1], tmp_path)
    assert read_decisions(fill_in(sheet, [word]), ROWS[:1])[1]["kept"] == 1


@pytest.mark.parametrize("word", ["no", "N", "0", "False"])
def test_words_that_drop(tmp_path: Path, word: str) -> None:
    sheet, _ = write_review(ROWS[:1], tmp_path)
    assert read_decisions(fill_in(sheet, [word]), ROWS[:1])[1]["dropped"] == 1


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheet_may_separate_fields_its_own_way(tmp_path: Path, delimiter: str) -> None:
    sheet, _ = write_review([row(HOSTILE), *ROWS], tmp_path)
    _, counts = read_decisions(fill_in(sheet, ["no", "yes"], delimiter=delimiter), [row(HOSTILE), *ROWS])
    assert counts == {"kept": 1, "dropped": 1, "undecided": 3}


def test_a_row_the_sheet_lacks_is_not_reviewed(tmp_path: Path) -> None:
    sheet, _ = write_review(ROWS[:2], tmp_path)
    reviewed, counts = read_decisions(fill_in(sheet, ["yes", "yes"]), ROWS)
    assert counts == {"kept": 2, "dropped": 0, "undecided": 2}
    assert reviewed[3]["refusal"] == "not reviewed"


def test_rows_that_say_the_same_share_a_line_and_its_decision(tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[0], "recordings": ["c/3"]}]
    sheet, _ = write_review(rows, tmp_path)
    assert len(read_csv(sheet)) == 1
    assert read_decisions(fill_in(sheet, ["yes"]), rows)[1]["kept"] == 2


def test_an_id_depends_on_sentence_and_answer_alone_and_is_no_number() -> None:
    assert row_id(row("A [MASK].")) == row_id(row("A [MASK].", span="other", recordings=[]))
    assert len({row_id(row("A [MASK].")), row_id(row("B [MASK].")), row_id(row("A [MASK].", "cat"))}) == 3
    assert row_id(row("A [MASK].")).startswith("r")


def test_a_rebuilt_sheet_keeps_its_decisions(tmp_path: Path) -> None:
    sheet, _ = write_review(ROWS[:3], tmp_path)
    fill_in(sheet, ["no", "Y", ""], ["dull", "", ""])
    sheet, page = write_review([ROWS[3], *ROWS[:3]], tmp_path)
    assert [(line["keep"], line["comment"]) for line in read_csv(sheet)] == [
        ("", ""),
        ("no", "dull"),
        ("yes", ""),
        ("", ""),
    ]
    assert json.loads(Scripts(page).scripts[0][1])["rows"][1]["keep"] == "no"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["review.csv", "review.html"]


def test_decisions_of_rows_that_are_gone_are_set_aside(tmp_path: Path) -> None:
    for _ in range(2):
        sheet, _ = write_review(ROWS[:2], tmp_path)
        fill_in(sheet, ["no", "yes"])
        write_review(ROWS[1:], tmp_path)
    assert read_csv(sheet)[0]["keep"] == "yes"
    for number in (1, 2):
        assert [line["keep"] for line in read_csv(tmp_path / f"review.{number}.csv")] == ["no", "yes"]


def test_a_sheet_that_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    sheet, _ = write_review(ROWS, tmp_path)
    before = fill_in(sheet, ["perhaps"]).read_bytes()
    with pytest.raises(ValueError, match="line 2: keep must be yes, no or blank, got 'perhaps'"):
        write_review(ROWS, tmp_path)
    assert sheet.read_bytes() == before


def edit(sheet: Path, old: str, new: str) -> None:
    text = sheet.read_text(encoding="utf-8-sig")
    assert old in text
    sheet.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("keep,comment", "kept,comment", "no column keep"),
        (row_id(ROWS[1]), "r0", "line 3: no row has the id 'r0'"),
        (row_id(ROWS[1]), "", "line 3: the id is blank"),
        (row_id(ROWS[1]), row_id(ROWS[0]), "line 3: the id .* stands in line 2 already"),
        ("Woof number 2", "Bark number 2", "line 4: the sentence was 'Woof .* and is now 'Bark"),
        (",dog,", ",wolf,", "line 2: the answer was 'dog' and is now 'wolf'"),
        (",dog,", ",dog,,,,", "line 2: the row has more or fewer fields"),
        ("Woof number 2", '"Woof" number 2', "no valid CSV"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    sheet, _ = write_review(ROWS, tmp_path)
    edit(sheet, old, new)
    with pytest.raises(ValueError, match=message):
        read_decisions(sheet, ROWS)


def test_files_that_are_no_sheet(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no sheet"):
        read_decisions(tmp_path / "none.csv", ROWS)
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="its columns are none"):
        read_decisions(tmp_path / "empty.csv", ROWS)
    sheet, _ = write_review([row("Miaou é is a [MASK].")], tmp_path)
    sheet.write_bytes(sheet.read_text(encoding="utf-8-sig").encode("latin-1"))
    with pytest.raises(ValueError, match="line 2: byte 0xe9 at position .* is no UTF-8"):
        read_decisions(sheet, ROWS)
    with pytest.raises(ValueError, match="no row to review"):
        write_review([], tmp_path)
