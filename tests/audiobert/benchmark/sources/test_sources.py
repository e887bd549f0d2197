"""Reading records: every recording of a source is used or refused for a reason, in an order that stays."""

from __future__ import annotations

import ast
import io
import json
import os
import tarfile
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, IterableDataset, Value, load_dataset

from audiobert.benchmark.sources import webdataset
from audiobert.benchmark.sources.datasets import DatasetSource, StoredAudio
from audiobert.benchmark.sources.opening import open_source
from audiobert.benchmark.sources.records import Record, RecordSource, clean_text
from audiobert.sounds.decoding import load_audio

from audio_fixtures import tone, write_recordings


def flac(frequency: float = 440.0) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, tone(frequency, 0.05, 48000), 48000, format="FLAC")
    return content.getvalue()


FLAC = flac()


def laion(number: int, **original: object) -> bytes:
    value = {
        "text": [f"Dog {number}.", "A dog barks twice."],
        "tag": ["dog", "bark"],
        "original_data": {
            "title": f"Dog {number}.wav",
            "description": 'A dog<br>barks at <a href="http://example.org">me</a>, &amp; again.',
            "license": "CC0",
            "username": "somebody",
            "id": 1000 + number,
            "download_url": f"https://freesound.org/apiv2/sounds/{1000 + number}/download/",
            **original,
        },
    }
    return json.dumps(value).encode()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def pairs(numbers: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    for number in numbers:
        yield f"data/train/{number}.flac", FLAC
        yield f"data/train/{number}.json", laion(number)


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def refusals(records: Iterable[Record]) -> Counter:
    return Counter(record.refusal for record in records)


def samples_heard(source: RecordSource) -> list[int | None]:
    """The length in samples of the audio of each record that is used, None where it is gone."""
    rows = [record.to_row() for record in source.records() if record.refusal is None]
    given = list(source.audio_of(rows))
    assert [row for row, _ in given] == rows
    return [None if file is None else len(load_audio(file, 16000)) for _, file in given]


def test_the_layout_of_laion_audio_630k(tmp_path: Path) -> None:
    root = write_files(
        tmp_path / "laion",
        {
            "freesound/train/2.flac": FLAC,
            "freesound/train/2.json": laion(2),
            "freesound/train/10.flac": FLAC,
            "freesound/train/10.json": laion(10),
            # BBC sound effects: the text is no list, and there is nothing else.
            "bbc/test/deep/1.FLAC": FLAC,
            "bbc/test/deep/1.json": b'{"text": "Busy street, cars"}',
            ".hidden/1.flac": FLAC,
            "bbc/._1.flac": b"left by a file manager",
        },
    )
    source = open_source(root)
    first, second, third = source.records()
    assert first == Record("bbc/test/deep/1", "bbc/test/deep/1.FLAC", ("Busy street, cars",), source="bbc")
    assert second.id == "1010" and third == Record(
        id="1002",
        audio="freesound/train/2.flac",
        text=("Dog 2.wav", "Dog 2.", "A dog barks twice."),
        tags=("dog", "bark"),
        description="A dog barks at me, & again.",
        source="freesound.org",
        license="CC0",
    )
    assert samples_heard(source) == [800, 800, 800]
    (root / "freesound/train/10.flac").unlink()
    assert list(source.audio_of([second.to_row()])) == [(second.to_row(), None)]


def test_a_record_survives_json(tmp_path: Path) -> None:
    record = Record("1", "1.flac", ("Dog", "A dog"), ("dog",), "barks", "freesound.org", "CC0")
    row = json.loads(json.dumps(record.to_row()))
    assert row["refusal"] is None
    assert Record(**{**row, "text": tuple(row["text"]), "tags": tuple(row["tags"])}) == record


def test_records_that_cannot_be_used_are_counted_by_reason(tmp_path: Path) -> None:
    root = write_files(
        tmp_path,
        {
            "a/1.flac": FLAC,
            "a/1.json": laion(1),
            "a/2.flac": FLAC,
            "a/3.json": laion(3),
            "a/4.flac": FLAC,
            "a/4.json": b'{"text": ["cut o',
            "a/5.flac": FLAC,
            "a/5.json": b"\xff\xfe",
            "a/6.flac": FLAC,
            "a/6.json": b"[1, 2]",
            "a/7.flac": FLAC,
            "a/7.json": b"[" * 100_000,
            "a/8.flac": FLAC,
            "a/8.json": b'{"text": ["  ", "<br>"], "tag": [], "original_data": null}',
            "b/1.flac": FLAC,
            "b/1.json": laion(1),
        },
    )
    records = list(open_source(root).records())
    assert refusals(records) == {
        None: 1,
        "no metadata": 1,
        "no audio": 1,
        "unreadable metadata": 4,
        "no text": 1,
        "double id": 1,
    }
    details = {record.refusal: record.detail for record in records}
    assert "2.json" in details["no metadata"] and "3.json" in details["no audio"]
    assert "1001" in details["double id"] and "b/1.flac" in details["double id"]


def test_the_text_of_a_record_without_title_and_caption() -> None:
    columns = {"text": ["", None, None], "description": ["A dog barks", "", ""], "tags": ["dog", "dog, bark", ""]}
    records = list(open_source(Dataset.from_dict(columns)).records())
    assert [record.text for record in records] == [("A dog barks",), ("dog, bark",), ()]
    assert [record.refusal for record in records] == [None, None, "no text"]


def test_tars_read_as_loose_files_do(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/freesound/train/name1.tar", pairs(range(3, 5)))
    write_tar(tmp_path / "tars/freesound/train/name0.tar", pairs(range(3)))
    write_files(tmp_path / "tars/freesound/train", {"sizes.json": b'{"name0.tar": 3, "name1.tar": 2}'})
    loose = write_files(tmp_path / "loose", dict(pairs(range(5))))
    tars = open_source(tmp_path / "tars")
    from_tars, from_files = list(tars.records()), list(open_source(loose).records())
    assert from_tars[0].audio == "freesound/train/name0.tar::data/train/0.flac"

    def words(records: list[Record]) -> list[dict]:
        return [{**record.to_row(), "audio": ""} for record in records]

    assert words(from_tars) == words(from_files)
    assert samples_heard(tars) == [800] * 5
    assert samples_heard(open_source(tmp_path / "tars/freesound/train/name1.tar")) == [800] * 2


def test_audio_is_that_of_its_record(tmp_path: Path) -> None:
    """Also for some of the rows, as the shards of a cluster ask for them."""
    contents = {number: flac(200.0 + number) for number in range(8)}
    for shard in range(2):
        members = []
        for number in range(4 * shard, 4 * shard + 4):
            members += [(f"{number}.flac", contents[number]), (f"{number}.json", laion(number))]
        write_tar(tmp_path / f"{shard}.tar", members)
    source = open_source(tmp_path)
    rows = [record.to_row() for record in source.records()]
    for chosen in (rows, rows[1::3], rows[5:]):
        assert [file for _, file in source.audio_of(chosen)] == [contents[int(row["id"]) - 1000] for row in chosen]
    (tmp_path / "0.tar").unlink()
    assert [file is None for _, file in source.audio_of(rows)] == [True] * 4 + [False] * 4


def test_the_members_of_a_tar_in_any_order(tmp_path: Path) -> None:
    """As `tar cf` writes a folder: the halves of a pair need not be neighbours."""
    members = sorted(pairs(range(6)), key=lambda member: (member[0][::-1], member[0]))
    members += [("data/train/7.flac", FLAC), ("data/train/8.json", laion(8)), ("data/train/readme.txt", b"")]
    records = list(open_source(write_tar(tmp_path / "x.tar", members)).records())
    assert refusals(records) == {None: 6, "no metadata": 1, "no audio": 1}
    assert all(record.audio.endswith(f"/{int(record.id) - 1000}.flac") for record in records[:6])


@pytest.mark.parametrize("damage", ["cut off in audio", "cut off between files", "broken header", "no tar", "empty"])
def test_a_damaged_tar_costs_no_more_than_its_rest(tmp_path: Path, damage: str) -> None:
    for shard in range(3):
        write_tar(tmp_path / f"{shard}.tar", pairs(range(10 * shard, 10 * shard + 10)))
    path = tmp_path / "1.tar"
    with tarfile.open(path) as archive:
        sixth = archive.getmember("data/train/15.flac")
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut off in audio": content[: sixth.offset_data + 100],
            "cut off between files": content[: sixth.offset],
            "broken header": content[: sixth.offset] + b"\xaa" * 512 + content[sixth.offset_data :],
            "no tar": b"<html>404</html>" * 100,
            "empty": b"",
        }[damage]
    )
    source = open_source(tmp_path)
    records = list(source.records())
    before = 0 if damage in ("no tar", "empty") else 5
    assert refusals(records) == {None: 20 + before, "damaged archive": 1}
    refused = next(record for record in records if record.refusal)
    assert records.index(refused) == 10 + before and "1.tar" in refused.detail
    assert samples_heard(source) == [800] * (20 + before)


@pytest.mark.processes
def test_memory_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    description = "long " * 2000

    def peak(count: int) -> int:
        root = tmp_path / str(count)
        for shard in range(count // 100):
            numbers = range(100 * shard, 100 * shard + 100)
            members = []
            for number in numbers:
                members += [(f"{number}.flac", b"x"), (f"{number}.json", laion(number, description=description))]
            write_tar(root / f"{shard:03d}.tar", members)
        source = open_source(root)
        tracemalloc.start()
        try:
            assert sum(1 for _ in source.records()) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    # 900 descriptions are 9 MB; 900 ids are less than a tenth of one.
    assert peak(1000) - peak(100) < 300_000


def test_a_folder_with_metadata_csv(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a/1.wav", "title": "One", "caption": "A <b>dog</b>", "tags": "dog; bark,pet", "license": "CC0"},
        {"file_name": "2.wav", "title": "NA", "caption": "", "tags": "", "license": ""},
        {"file_name": "3.wav", "title": "", "caption": "", "tags": "", "license": ""},
        {"file_name": "4.wav", "title": "Four", "caption": "", "tags": "", "license": ""},
    ]
    root = write_recordings(tmp_path / "mine", rows)
    (root / "4.wav").unlink()
    with open(root / "metadata.csv", "a", encoding="utf-8") as file:
        file.write("../../etc/passwd,x,,,\n/etc/passwd,x,,,\n,x,,,\n5.wav,too,few\n2.wav,again,,,\n")
    source = open_source(root)
    records = list(source.records())
    assert records[0] == Record(
        "a/1.wav", "a/1.wav", ("One", "A dog"), ("dog", "bark", "pet"), source="mine", license="CC0"
    )
    assert records[1].text == ("NA",)
    assert [record.refusal for record in records[2:]] == [
        "no text",
        "no audio",
        "no audio",
        "no audio",
        "no audio",
        "unreadable metadata",
        "double id",
    ]
    assert samples_heard(source) == [6400, 8000]
    assert list(open_source(root / "metadata.csv").records()) == records
    # Rows of a stage file cannot lead out of the folder either.
    assert list(source.audio_of([{"audio": "../../etc/passwd"}])) == [({"audio": "../../etc/passwd"}, None)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"title,text\nx,y\n", "no column file_name"),
        (b"file_name,seconds\n1.wav,2\n", "needs a column title, text, caption"),
        (b"file_name,title\n", "names no recordings"),
        ("file_name,title\n1.wav,caf\u00e9\n".encode("latin-1"), "line 2: byte 0xe9 at position 25 is no UTF-8"),
        (b'file_name,title\n1.wav,"cut o', "metadata.csv, line 2: a quotation mark opens a cell"),
    ],
)
def test_a_metadata_csv_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    write_files(tmp_path, {"metadata.csv": content})
    with pytest.raises(ValueError, match=message):
        list(open_source(tmp_path).records())


def test_no_module_of_the_sources_needs_one_that_needs_it() -> None:
    modules = {path.stem: path for path in Path(webdataset.__file__).parent.glob("*.py")}
    siblings = {
        name: {
            node.module
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
        }
        for name, path in modules.items()
    }
    order = list(TopologicalSorter(siblings).static_order())
    assert siblings["records"] == set() and order.index("records") < order.index("opening")


def test_what_is_no_source(tmp_path: Path) -> None:
    write_files(tmp_path, {"notes/readme.txt": b"", "notes/a.json": b"{}", "a.zip": b"", "tar.tar": b""})
    for missing in (tmp_path / "missing", "missing.tar", "./a/b/missing"):
        with pytest.raises(FileNotFoundError, match="missing"):
            open_source(missing)
    with pytest.raises(ValueError, match="holds no recordings"):
        open_source(tmp_path / "notes")
    with pytest.raises(ValueError, match="a.zip is no source"):
        open_source(tmp_path / "a.zip")
    with pytest.raises(ValueError, match="`config` belongs to datasets"):
        open_source(tmp_path / "tar.tar", config="full")
    # The tests are offline.
    with pytest.raises(OSError, match="'nobody/nothing' is no file or folder here"):
        open_source("nobody/nothing")
    with pytest.raises(TypeError, match="DatasetDict; pass one of its splits \\['train'\\]"):
        open_source(DatasetDict({"train": Dataset.from_dict({"text": ["a"]})}))
    with pytest.raises(TypeError, match="got int"):
        open_source(3)
    with pytest.raises(ValueError, match=r"needs a column title.*\['category'\]"):
        open_source(Dataset.from_dict({"category": ["dog"]}))
    two = Features({"left": Audio(), "right": Audio(), "text": Value("string")})
    with pytest.raises(ValueError, match="several Audio columns"):
        open_source(Dataset.from_dict({"left": [], "right": [], "text": []}, features=two))


def test_cleaned_text() -> None:
    assert clean_text(" a <p>b</p>\n<!-- c --> d&quot;s <i>e</i>!") == 'a b d"s e!'
    assert clean_text("<3 dogs, 1 < 2 & 3 > 2") == "<3 dogs, 1 < 2 & 3 > 2"
    assert clean_text("half a pair \ud83d").encode() == b"half a pair"
    assert [clean_text(value) for value in (None, float("nan"), {}, 7)] == ["", "", "", "7"]


def test_a_fingerprint_changes_with_the_content_and_not_with_the_place(tmp_path: Path) -> None:
    def made(folder: Path) -> Path:
        write_files(folder / "loose/a", dict(pairs(range(2))))
        write_tar(folder / "tars/0.tar", pairs(range(2)))
        write_recordings(folder / "csv", [{"file_name": "1.wav", "label": "dog"}])
        return folder

    def fingerprints(folder: Path) -> list[str]:
        return [open_source(folder / name).fingerprint() for name in ("loose", "tars", "csv")]

    here, there = made(tmp_path / "here"), made(tmp_path / "there")
    before = fingerprints(here)
    assert fingerprints(there) == before
    write_files(there, {"loose/a/data/train/1.json": laion(1, title="Cat")})
    write_tar(there / "tars/0.tar", pairs(range(9)))
    write_recordings(there / "csv", [{"file_name": "1.wav", "label": "cat"}])
    assert [old == new for old, new in zip(before, fingerprints(there), strict=True)] == [False] * 3
    one, other = Dataset.from_dict({"text": ["dog"]}), Dataset.from_dict({"text": ["cat"]})
    again = Dataset.from_dict({"text": ["dog"]})
    assert open_source(one).fingerprint() == open_source(again).fingerprint() != open_source(other).fingerprint()


@pytest.fixture
def audiofolder(tmp_path: Path) -> Path:
    rows = [{"file_name": f"{i}.wav", "text": f"dog {i}", "tags": "dog", "license": "CC0"} for i in range(4)]
    return write_recordings(tmp_path / "audiofolder", rows)


@pytest.mark.parametrize("form", ["audiofolder stream", "Parquet stream", "Dataset", "stream of it", "webdataset"])
def test_datasets_of_every_kind(audiofolder: Path, tmp_path: Path, form: str) -> None:
    if form == "webdataset":
        write_tar(tmp_path / "w/0.tar", [(name.split("/")[-1], content) for name, content in pairs(range(4))])
        source = open_source(load_dataset(str(tmp_path / "w"), split="train", streaming=True))
        records = list(source.records())
        assert [record.id for record in records] == ["1000", "1001", "1002", "1003"]
        assert (records[3].source, records[3].text[0], records[3].audio) == ("freesound.org", "Dog 3.wav", "3")
        assert samples_heard(source) == [800] * 4
        return
    stream = load_dataset(str(audiofolder), split="train", streaming=True)
    stored = Dataset.from_dict(
        {
            "audio": [{"bytes": (audiofolder / f"{i}.wav").read_bytes(), "path": None} for i in range(4)],
            "text": [f"dog {i}" for i in range(4)],
            "tags": [["dog"]] * 4,
            "license": ["CC0"] * 4,
        }
    ).cast_column("audio", StoredAudio())
    # What an audio column is when nobody has asked for anything else.
    stored = stored.cast_column("audio", Audio())
    if form == "Parquet stream":
        (tmp_path / "p/data").mkdir(parents=True)
        stored.cast_column("audio", StoredAudio()).to_parquet(tmp_path / "p/data/train-00000.parquet")
        dataset = tmp_path / "p"
    else:
        dataset = {"audiofolder stream": stream, "Dataset": stored, "stream of it": stored.to_iterable_dataset()}[form]
    source = open_source(dataset)
    records = list(source.records())
    name = "p, train" if form == "Parquet stream" else "dataset"
    assert records[2] == Record("2", "2", ("dog 2",), ("dog",), source=name, license="CC0")
    assert refusals(records) == {None: 4}
    assert samples_heard(source) == [6400, 8000, 9600, 11200]
    some = [records[1].to_row(), records[3].to_row()]
    assert [len(load_audio(file, 16000)) for _, file in source.audio_of(some)] == [8000, 11200]


def test_a_stream_without_features_is_read_one_row_at_a_time() -> None:
    taken = 0

    def rows() -> Iterator[dict]:
        nonlocal taken
        for number in range(1000):
            taken = number
            yield {"id": number or None, "caption": f"dog {number}", "audio": {"bytes": FLAC, "path": None}}

    source = DatasetSource(IterableDataset.from_generator(rows))
    records = source.records()
    first, second = next(records), next(records)
    assert taken < 100
    # An id that is missing is not mistaken for one that is a number.
    assert (first.id, second.id) == ("row-0", "1")
    wanted = [second.to_row()]
    assert list(source.audio_of(wanted)) == [(wanted[0], FLAC)]
    with pytest.raises(ValueError, match="row 0 was asked for after row 1"):
        list(source.audio_of([second.to_row(), first.to_row()]))


def test_labels_are_given_by_name_and_other_columns_are_not_read(tmp_path: Path) -> None:
    features = Features({"audio": Audio(), "label": ClassLabel(names=["dog", "cat"]), "text": Value("string")})
    dataset = Dataset.from_dict({"audio": [None, None], "label": [1, None], "text": ["meow", None]}, features=features)
    source = open_source(dataset)
    assert [(record.text, record.refusal) for record in source.records()] == [
        (("meow", "cat"), None),
        ((), "no text"),
    ]
    assert samples_heard(source) == [None]
    # Without audio there are records all the same: the animal prompts need none.
    assert samples_heard(open_source(dataset.remove_columns("audio"))) == [None]


def test_a_stream_that_breaks_names_the_row() -> None:
    def rows() -> Iterator[dict]:
        yield {"text": "dog"}
        raise RuntimeError("connection reset")

    records = open_source(IterableDataset.from_generator(rows)).records()
    assert next(records).text == ("dog",)
    with pytest.raises(OSError, match="dataset cannot be read at row 1: connection reset"):
        next(records)


def test_a_hub_dataset_is_streamed_in_one_version(audiofolder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter(["a" * 40, "a" * 40, "b" * 40])
    asked = []

    def load(name: str, config: str | None, **options: object) -> IterableDataset:
        asked.append((name, config, options))
        return load_dataset(str(audiofolder), split="train", streaming=True)

    monkeypatch.setattr(
        huggingface_hub.HfApi, "dataset_info", lambda self, name: SimpleNamespace(sha=next(commits)), raising=True
    )
    monkeypatch.setattr("audiobert.benchmark.sources.datasets.load_dataset", load)
    first, same, changed = (open_source("someone/sounds", split="test", config="small", token="t") for _ in range(3))
    options = {"split": "test", "streaming": True, "revision": "a" * 40, "token": "t"}
    assert asked[0] == ("someone/sounds", "small", options)
    assert first.name == "someone/sounds, small, test"
    assert first.fingerprint() == same.fingerprint() != changed.fingerprint()
    assert samples_heard(first) == [6400, 8000, 9600, 11200]


def test_files_that_a_stream_names_by_address_are_fetched(audiofolder: Path) -> None:
    paths = [f"file://{audiofolder}/0.wav", f"file://{audiofolder}/gone.wav", str(audiofolder / "gone.wav")]
    dataset = Dataset.from_dict({"audio": paths, "text": ["a", "b", "c"]})
    assert samples_heard(open_source(dataset)) == [6400, None, None]
    arrays = Dataset.from_dict({"audio": [{"array": [0.0], "sampling_rate": 8000}], "text": ["a"]})
    with pytest.raises(ValueError, match="has to hold encoded audio"):
        samples_heard(open_source(arrays))


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    write_files(tmp_path / "elsewhere", {"1.flac": FLAC, "1.json": laion(1)})
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "root/linked")
    os.symlink(tmp_path / "root", tmp_path / "elsewhere/loop")
    source = open_source(tmp_path / "root")
    assert refusals(source.records()) == {None: 1}
    assert samples_heard(source) == [800]


def test_a_bad_sector_in_a_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "0.tar", pairs(range(3)))
    write_tar(tmp_path / "1.tar", pairs(range(3, 6)))
    content = webdataset.Archive.content

    def failing(archive: webdataset.Archive, member: tarfile.TarInfo) -> bytes:
        if member.name == "data/train/1.json":
            raise OSError(5, "Input/output error")
        return content(archive, member)

    monkeypatch.setattr(webdataset.Archive, "content", failing)
    records = list(open_source(tmp_path).records())
    assert refusals(records) == {None: 4, "damaged archive": 1}
    assert "0.tar: Input/output error" in next(record.detail for record in records if record.refusal)


@pytest.mark.real_data
@pytest.mark.skipif("AUDIO_DIR" not in os.environ, reason="AUDIO_DIR does not name the folder of real recordings")
def test_real_recordings() -> None:
    source = open_source(os.environ["AUDIO_DIR"])
    records = list(source.records())
    assert len(records) == 1606 and refusals(records) == {None: 1606}
    assert all(isinstance(file, str) for _, file in source.audio_of(record.to_row() for record in records))
    assert {record.source for record in records} == {"Animal-Sound-Dataset", "ESC-10", "ESC-50"}
