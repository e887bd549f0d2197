"""Lists of recordings: every cell stands in its column and every file in its folder, or the line is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiobert.benchmark.sources.opening import open_source
from audiobert.csv_files import read_csv
from audiobert.sounds.recordings import find_recording, read_metadata, read_recordings, recording_path

HEADER = "file_name,label,source,license,seconds\n"
GOOD = "a.wav,dog,me,CC0,1.5\n"


def folder_with(folder: Path, content: str | bytes) -> Path:
    """A folder with these metadata, and the recordings a.wav to d.wav, as files without sound."""
    folder.mkdir(exist_ok=True)
    (folder / "metadata.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in "abcd":
        (folder / f"{name}.wav").touch()
    return folder


# What makes the whole file doubtful.
WHOLE = {
    "double header": ("file_name,label,label\na.wav,dog,cat\n", r"several columns 'label'"),
    "no column": ("name,label\na.wav,dog\n", "has no column file_name; its columns are \\['name', 'label'\\]"),
    "latin-1": ((HEADER + "a.wav,Kühe,,,\n").encode("latin-1"), "line 2: byte 0xfc at position 46 is no UTF-8"),
    "UTF-16": ((HEADER + GOOD).encode("utf-16"), "line 1: byte 0xff at position 0 is no UTF-8"),
    "UTF-16 without a mark": ((HEADER + GOOD).encode("utf-16-le"), "line 1: a NUL character"),
    "quote open to the end": (HEADER + GOOD + 'b.wav,"dog,me,CC0,\nc.wav,cat,,,\n', "line 3: a quotation mark opens"),
    "quote closed a row later": (
        HEADER + 'a.wav,"dog,me,CC0,1\nb.wav,cat",me,CC0,2\n',
        "line 2: a cell goes on over .*b.wav",
    ),
    "quote closed three rows later": (
        HEADER + GOOD + 'b.wav,"dog,me,CC0,1\nc.wav,cat,me,CC0,2\nd.wav,cow",me,CC0,2\n',
        "line 3: a cell goes on over the row of 'c.wav'",
    ),
    "quote closed after the name": (
        'label,file_name,text\n"dog,a.wav,x\ncat",b.wav,x\n',
        "line 2: a cell goes on over the row of 'a.wav'",
    ),
    "text behind a quote": (HEADER + 'a.wav,"dog" big,,,\n', "line 2: no valid CSV"),
    "long cell": (HEADER + f"a.wav,{'x' * 131_073},,,\n", "line 2: a cell of more than 131,072 characters"),
}

# What is wrong with one row alone, and the reason by which a benchmark's records count it.
OF_A_ROW = {
    "stray comma": ("b.wav,cow, brown,me,CC0,1", "6 cells under 5 columns", "unreadable metadata"),
    "too few": ("b.wav,cow", "2 cells under 5 columns", "unreadable metadata"),
    "no name": (",cow,,,", "file_name has to be a path within the folder", "no audio"),
    "parent": ("../b.wav,cow,,,", "file_name has to be a path within the folder", "no audio"),
    "parent within": ("x/../../b.wav,cow,,,", "file_name has to be a path within the folder", "no audio"),
    "absolute": ("/b.wav,cow,,,", "file_name has to be a path within the folder", "no audio"),
    "backslash": ("x\\b.wav,cow,,,", "file_name has to be a path within the folder, written with /", "no audio"),
    "drive": ("C:b.wav,cow,,,", "file_name has to be a path within the folder", "no audio"),
    "twice": ("a.wav,cow,,,", "'a.wav' stands in line 2 already", "double id"),
    "two lines": ('b.wav,"cow\nbrown",,,', "label holds a line break", "unreadable metadata"),
    "seconds nan": ("b.wav,cow,,,nan", "seconds has to be a number, 0 or more, got 'nan'", "unreadable metadata"),
    "seconds inf": ("b.wav,cow,,,inf", "seconds has to be a number, 0 or more, got 'inf'", "unreadable metadata"),
    "seconds below 0": ("b.wav,cow,,,-5", "seconds has to be a number, 0 or more, got '-5'", "unreadable metadata"),
    "seconds in words": (
        "b.wav,cow,,,long",
        "seconds has to be a number, 0 or more, got 'long'",
        "unreadable metadata",
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_makes_the_whole_file_doubtful_is_an_error_for_everybody(tmp_path: Path, name: str) -> None:
    content, message = WHOLE[name]
    folder = folder_with(tmp_path / "mine", content)
    for read in (lambda: read_recordings(folder), lambda: list(open_source(folder).records())):
        with pytest.raises(ValueError, match=f"mine/metadata.csv.*{message}"):
            read()


@pytest.mark.parametrize("name", OF_A_ROW)
def test_what_is_wrong_with_a_row_is_told_with_its_line_and_listed_where_others_go_on(
    tmp_path: Path, name: str
) -> None:
    row, message, reason = OF_A_ROW[name]
    folder = folder_with(tmp_path / "mine", f"{HEADER}{GOOD}{row}\nc.wav,cat,me,CC0,2\n")
    with pytest.raises(ValueError, match=f"mine/metadata.csv, line 3: {message}"):
        read_recordings(folder)
    records = list(open_source(folder).records())
    assert [record.refusal for record in records] == [None, reason, None]
    assert f"line 3: {message}" in records[1].detail
    assert [(record.id, record.license) for record in (records[0], records[2])] == [("a.wav", "CC0"), ("c.wav", "CC0")]


@pytest.mark.parametrize(
    ("csv_text", "message"),
    [
        ("file_name,name\na.wav,dog\n", "no column label or caption"),
        ("file_name,label\n", "holds no recordings"),
        ("file_name,label\na.wav, \n", "'a.wav' no label"),
    ],
)
def test_metadata_that_give_nothing_to_hear(tmp_path: Path, csv_text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recordings(folder_with(tmp_path, csv_text))


def test_metadata_as_other_programs_write_it(tmp_path: Path) -> None:
    text = '\ufefffile_name,caption,seconds\r\n"a, b.wav","barks, ""loudly""",\r\n\r\nNA.wav,NA,1.5\r\n'
    recordings = read_recordings(folder_with(tmp_path, text))
    assert [(recording.id, recording.label, recording.seconds) for recording in recordings] == [
        ("a, b.wav", 'barks, "loudly"', None),
        ("NA.wav", "NA", 1.5),
    ]
    assert [recording.open() for recording in recordings] == [str(tmp_path / "a, b.wav"), str(tmp_path / "NA.wav")]


def test_a_description_may_go_over_several_lines(tmp_path: Path) -> None:
    text = 'file_name,label,description\na.wav,dog,"A dog, barking.\nTwice, at a cat, near c.wav, d."\nb.wav,cat,\n'
    rows = list(read_metadata(folder_with(tmp_path, text)))
    assert [(row.line, row.file_name, row.fault) for row in rows] == [(2, "a.wav", None), (4, "b.wav", None)]


def test_no_folder_and_no_metadata(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no folder"):
        read_recordings(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"has no metadata.csv"):
        read_recordings(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.wav",
        "sounds/../../secret.wav",
        "{folder}/secret.wav",
        "..\\secret.wav",
        "C:\\secret.wav",
        "C:x.wav",
        "",
    ],
)
def test_no_id_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "audio" / "sounds").mkdir(parents=True)
    (tmp_path / "secret.wav").touch()
    for find in (find_recording, recording_path):
        with pytest.raises(ValueError, match="leads out|has no name"):
            find(tmp_path / "audio", name.format(folder=tmp_path))


def test_a_recording_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert find_recording(tmp_path, "a.wav") == tmp_path / "a.wav"
    assert recording_path(tmp_path, "x/b.wav") == tmp_path / "x" / "b.wav"
    with pytest.raises(FileNotFoundError, match="b.wav"):
        find_recording(tmp_path, "b.wav")


def test_a_table_with_other_delimiters_and_required_columns(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('a;b\n"1;";2\n')
    (row,) = read_csv(path, ("a", "b"), delimiter=";")
    assert (row.line, row.cells, row.misfit) == (2, {"a": "1;", "b": "2"}, None)
    with pytest.raises(ValueError, match="table.csv has no column c; its columns are"):
        list(read_csv(path, ("c",), delimiter=";"))
