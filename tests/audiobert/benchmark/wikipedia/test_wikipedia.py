from __future__ import annotations

import csv
import json
import os
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiobert.benchmark.stages import Refusal
from audiobert.benchmark.wikipedia import refresh as wikipedia_refresh
from audiobert.benchmark.wikipedia.facts import (
    TABLES,
    PitchRange,
    animal_rows,
    direction,
    note_name,
    note_number,
    pitch_rows,
    read_animal_sounds,
    read_pitch_ranges,
)
from audiobert.benchmark.wikipedia.pages import parse_animal_sounds, parse_pitch_ranges
from audiobert.benchmark.wikipedia.refresh import refresh

needs_auditorybench = pytest.mark.skipif(
    "AUDITORYBENCH_DIR" not in os.environ, reason="AUDITORYBENCH_DIR does not name AuditoryBench's CSV files"
)


@pytest.mark.parametrize(
    ("note", "number"),
    [("C4", 60), ("A4", 69), ("F#3", 54), ("F♯3", 54), ("A♭2", 44), ("Bb-1", 10), ("C−1", 0), ("Cb4", 59), ("G9", 127)],
)
def test_numbers_of_notes(note: str, number: int) -> None:
    assert note_number(note) == number


@pytest.mark.parametrize("note", ["", "H3", "C", "4", "c4", "C#b4", "C4-E5", "G#9", "Cb-1"])
def test_no_notes(note: str) -> None:
    with pytest.raises(ValueError, match=f"unknown note '{note}'; write it like C4"):
        note_number(note)


@given(st.integers(0, 127))
def test_names_of_notes(number: int) -> None:
    assert note_number(note_name(number)) == number


def test_the_tables_of_the_package() -> None:
    sounds, ranges = read_animal_sounds(), read_pitch_ranges()
    assert len({animal for animal, _ in sounds}) >= 80 and len(sounds) >= 200
    assert len(ranges) >= 100
    assert {("dog", "bark"), ("cattle", "moo"), ("frog", "ribbit")} <= set(sounds)
    notes = json.loads((TABLES / "tables.json").read_text(encoding="utf-8"))
    assert set(notes) == {"animal", "pitch"}
    for note in notes.values():
        assert (TABLES / note["table"]).is_file()
        assert note["source"] and re.fullmatch(r"\d{4}-\d\d-\d\d", note["date"])


@pytest.mark.parametrize(
    "family",
    [
        "bass voice,baritone voice,tenor voice,alto voice,mezzo-soprano voice,soprano voice",
        "octobass,double bass,cello,viola,violin",
        "contrabassoon,bassoon,cor anglais,oboe",
        "contrabass saxophone,bass saxophone,tenor saxophone,alto saxophone,soprano saxophone,sopranino saxophone",
        "contrabass clarinet,bass clarinet,alto clarinet,soprano clarinet,sopranino clarinet",
        "contrabass flute,bass flute,alto flute,flute,treble flute,piccolo",
        "contrabass recorder,bass recorder,tenor recorder,alto recorder,soprano recorder,garklein recorder",
        "contrabass trombone,bass trombone,alto trombone,soprano trombone,piccolo trombone",
        "contrabass tuba,bass tuba,tenor Wagner tuba,alto horn,flugelhorn,piccolo trumpet",
        "32-inch timpani,29-inch timpani,26-inch timpani,23-inch timpani,20-inch timpani",
        "tubular bells,xylophone,glockenspiel,crotales",
    ],
)
def test_families_from_low_to_high(family: str) -> None:
    ranges = {row.name: row for row in read_pitch_ranges()}
    names = family.split(",")
    for i, lower in enumerate(names):
        for higher in names[i + 1 :]:
            assert direction(ranges[lower], ranges[higher]) == "lower", (lower, higher)


def test_sentences_on_animals() -> None:
    rows = list(animal_rows(read_animal_sounds()))
    row = next(row for row in rows if row["answer"] == "cattle")
    assert row == {
        "task": "animal",
        "sentence": "moo is the sound a [MASK] makes.",
        "answer": "cattle",
        "spans": ["moo"],
        "recordings": [],
        "refusal": None,
    }
    refused = {row["answer"]: row["refusal"] for row in rows if row["refusal"]}
    assert refused == {"cuckoo": "the answer stands in the prompt"}


def test_sentences_on_pitch() -> None:
    low, high = PitchRange("tuba", 28, 65), PitchRange("piccolo", 74, 108)
    assert list(pitch_rows([low, high])) == [
        {
            "task": "pitch",
            "sentence": "The sound of tuba is [MASK] than the sound of piccolo",
            "answer": "lower",
            "spans": ["tuba", "piccolo"],
            "recordings": [],
            "refusal": None,
        }
    ]


def test_every_pair_once_and_both_answers_alike() -> None:
    ranges = read_pitch_ranges()
    rows = list(pitch_rows(ranges))
    assert len({frozenset(row["spans"]) for row in rows}) == len(rows) == len(ranges) * (len(ranges) - 1) // 2
    assert set(Counter(row["refusal"] for row in rows)) == {
        None,
        "the middles of the ranges differ by 10 % or less",
        "one range lies within the other",
    }
    kept = [row for row in rows if row["refusal"] is None]
    assert 0.48 < sum(row["answer"] == "higher" for row in kept) / len(kept) < 0.52


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [
        ("C4-C6", "C5-C7", "lower"),
        ("C5-C7", "C4-C6", "higher"),
        # One end is the same.
        ("C4-C7", "C4-C6", "higher"),
        # The one reaches lower and higher; on both ends, and not.
        ("A0-C8", "C4-C6", "one range lies within the other"),
        ("C4-C6", "A0-C8", "one range lies within the other"),
        # The middles are two semitones apart, one and a half, none.
        ("C4-C6", "D4-D6", "lower"),
        ("C4-C6", "C#4-D6", "the middles of the ranges differ by 10 % or less"),
        ("C4-C6", "C4-C6", "the middles of the ranges differ by 10 % or less"),
    ],
)
def test_the_direction_of_two_ranges(first: str, second: str, answer: str) -> None:
    ranges = [PitchRange(name, *map(note_number, name.split("-"))) for name in (first, second)]
    if answer in ("higher", "lower"):
        assert direction(*ranges) == answer
    else:
        with pytest.raises(Refusal) as error:
            direction(*ranges)
        assert error.value.reason == answer
        assert first in error.value.detail and second in error.value.detail


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,lowest\nflute,C4\n", "no column highest; its columns are"),
        ("name,lowest,highest\n", "no rows below its header"),
        ("name,lowest,highest\nflute,C4,\n", "line 2: the row has no highest"),
        ("name,lowest,highest\nflute,C4\n", "line 2: the row has no highest"),
        ("name,lowest,highest\nflute,C4,H7\n", "line 2: unknown note 'H7'"),
        (
            "name,lowest,highest\nflute,C4,C7\nbass,C7,C4\n",
            "line 3: the range of 'bass' is upside down, C7 lies above C4",
        ),
        ("name,lowest,highest\nflute,C4,C7\nflute,C4,D7\n", "line 3: 'flute' stands there twice"),
        ('name,lowest,highest\n"flute,C4,C7\n', "line 2: a quotation mark opens a cell"),
        ("name,lowest,highest\nflute,C4,C7,C8\n", "line 2: 4 cells under 3 columns"),
    ],
)
def test_pitch_tables_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"mine.csv.*{message}"):
        read_pitch_ranges(path)


def test_animal_tables_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    with pytest.raises(FileNotFoundError, match="no table .*mine.csv"):
        read_animal_sounds(path)
    path.write_text("animal,sound\ncat,meow\ncat,meow\n")
    with pytest.raises(ValueError, match="line 3: 'cat' with the sound 'meow' stands there twice"):
        read_animal_sounds(path)
    path.write_text("animal,sound\ncat,\n")
    with pytest.raises(ValueError, match="line 2: the row has no sound"):
        read_animal_sounds(path)
    path.write_bytes("animal,sound\nkäfer,brumm\n".encode("latin-1"))
    with pytest.raises(ValueError, match="mine.csv, line .*: byte 0x.* is no UTF-8"):
        read_animal_sounds(path)


ANIMAL_PAGE = """\
{{Short description|None}}
Words for the noises of '''animals'''.<ref>{{cite web|title=A | url=http://example.org}}</ref>
{| class="wikitable"
! Phylum !! Members
|-
| Chordata || 70,000
|}
{| class="wikitable sortable"
|+ Sounds
|-
! scope="col" | Animal
! Description<ref name="d"/>
! class="unsortable" | Listen
|-
! colspan="3" | B
|-
| [[Brown bear|Bear]]
| [[wikt:growl|growl]], [[wikt:roar]]<ref name="bears">Bears, and ''more'' | of them</ref>
| [[File:Bear.ogg|thumb|a [[bear]] at noon]]
|- style="vertical-align: top"
| rowspan="2" | [[Cat]]<!-- the
pet -->
| {{lang|en|meow}}; purr (when [[content]])<br />''[[wikt:hiss|hiss]]''
| rowspan=2 | {{Listen|filename=Cat.ogg|title=Meow}}
|-
| {{hlist|caterwaul|mew and trill}}
|-
| Crow || caw/cah or kraa{{citation needed|date=May 2024}} || {{Audio|Crow.ogg|crow}}
|-
| Guinea&nbsp;pig
|
* [[Wheeking|wheek]]
* squeak
|
|-
| Fish ||  ||
|-
| || buzz ||
|-
| [[Frog]] || ribbit, 2 kHz tone, ribbit, a sound that nobody has ever heard ||
|-
| 3 blind mice || squeak ||
|}
[[Category:Animal sounds]]
"""
ANIMAL_FACTS = [
    ("bear", "growl"),
    ("bear", "roar"),
    ("cat", "meow"),
    ("cat", "purr"),
    ("cat", "hiss"),
    ("cat", "caterwaul"),
    ("cat", "mew"),
    ("cat", "trill"),
    ("crow", "caw"),
    ("crow", "cah"),
    ("crow", "kraa"),
    ("guinea pig", "wheek"),
    ("guinea pig", "squeak"),
    ("frog", "ribbit"),
]
ANIMAL_REFUSED = {
    "no sound": 1,
    "no animal": 1,
    "no plain word for a sound": 2,
    "stands twice": 1,
    "no plain name of an animal": 1,
}

ANIMAL_HTML = """<!DOCTYPE html><html><body><table><tr><td>Contents</td></tr></table>
<table class="wikitable"><caption>Sounds</caption><tbody>
<tr><th>Animal</th><th>Description<sup class="reference"><a>[1]</a></sup></th><th>Listen</th></tr>
<tr><th colspan="3">B</th></tr>
<tr><td><a title="Brown bear">Bear</a></td>
<td><a>growl</a>, <a>roar</a><sup>[2]</sup></td><td><audio>Your browser cannot play it</audio></td></tr>
<tr><td rowspan="2">Cat</td><td>meow; purr (when <a>content</a>)<br><i>hiss</i></td>
<td rowspan="2"><table><tr><td>Meow</td></tr></table></td></tr>
<tr><td><div class="hlist"><ul><li>caterwaul</li>
<li>mew and
trill</li></ul></div></td></tr>
<tr><td>Crow<td>caw/cah or kraa<sup><i>citation <b>needed</b></i></sup><td>
<tr><td>Guinea&nbsp;pig</td><td><ul><li>wheek</li><li>squeak</li></ul></td><td></td></tr>
<tr><td>Fish</td><td></td><td></td></tr>
<tr><td></td><td>buzz</td><td></td></tr>
<tr><td>Frog</td><td>ribbit, 2 kHz tone, ribbit, a sound that nobody has ever heard</td><td></td></tr>
<tr><td>3 blind mice</td><td>squeak</td><td></td></tr>
</tbody></table></body></html>
"""

PITCH_PAGE = """\
<noinclude>{{documentation}}</noinclude><timeline>
ImageSize = width:700 height:auto barincrement:17
Colors =
 id:b       value:rgb(0.85,0.85,0.85)   # instruments
 id:heading value:rgb(0,0.6,0.5)        # class
#> color:b from:$c1 till:$c2 text:commented out <#
Period = from:0 till:651
Define $ee = 170
Define $e1 = 314 Define $c1 = 290
Define $c2 = 362
Define $g3 = 476
Define $g1 = 332
PlotData=
 align:center textcolor:black fontsize:10 mark:(line,black) width:10 shift:(0,-4)
 color:heading from:$ee till:$c2 text:human voice
 color:b from:$ee till:$e1 text:bass
 color:b from:$c1 till:$c2 text:[[Soprano|soprano]] # trained
 color:heading from:2 till:650 text:"woodwinds"
 color:2x-subhead from:2 till:650 text:recorders
 color:b from:$c2 till:$g3 text:soprano
 color:b from:296  till:$g3   text:"[[Flute#Alto|alto~flute]]" fontsize:8
 from:$c1 till:$g3 text:harmonica color:b
 color:b from:$c2 till:$c1 text:upside down
 color:b from:$zz till:$c1 text:undefined
 color:b from:293 till:$c2 text:quarter tone
 color:b from:$c1 till:9999 text:ultrasound
 color:b from:$c1 till:$c2
 color:b from:$c1 till:$c2 text:harmonica
</timeline>
"""
PITCH_FACTS = [
    ("bass voice", "E2", "E4"),
    ("soprano voice", "C4", "C5"),
    ("soprano recorder", "C5", "G6"),
    ("alto flute", "C#4", "G6"),
    ("harmonica", "C4", "G6"),
]
PITCH_REFUSED = {
    "upside-down range": 1,
    "unknown note": 2,
    "between two notes": 1,
    "no name": 1,
    "stands twice": 1,
}


@pytest.mark.parametrize("page", [ANIMAL_PAGE, ANIMAL_HTML], ids=["wikitext", "html"])
def test_a_saved_page_of_animal_sounds(tmp_path: Path, page: str) -> None:
    saved = tmp_path / "page.txt"
    saved.write_text(page, encoding="utf-8")
    report = refresh("animal", tmp_path / "tables", saved)
    assert read_animal_sounds(report.path) == ANIMAL_FACTS
    assert (report.count, report.refused, report.revision) == (14, ANIMAL_REFUSED, None)
    notes = json.loads((tmp_path / "tables" / "tables.json").read_text(encoding="utf-8"))
    assert notes["animal"]["source"] == "the saved page page.txt"
    assert notes["animal"]["refused"] == ANIMAL_REFUSED
    assert str(tmp_path) not in json.dumps(notes)


def test_a_saved_page_of_pitch_ranges(tmp_path: Path) -> None:
    saved = tmp_path / "Template.wiki"
    saved.write_text(PITCH_PAGE, encoding="utf-8")
    report = refresh("pitch", tmp_path, saved)
    assert read_pitch_ranges(report.path) == [
        (name, note_number(low), note_number(high)) for name, low, high in PITCH_FACTS
    ]
    with open(report.path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1:] == [list(row) for row in PITCH_FACTS]
    assert (report.count, report.refused) == (5, PITCH_REFUSED)


def test_positions_are_read_by_the_octave_that_the_page_defines() -> None:
    page = "<timeline>\nDefine $c1 = 100\nDefine $c2 = 107\n color:b from:$c1 till:107 text:whistle\n</timeline>"
    assert parse_pitch_ranges(page)[0] == [("whistle", 60, 72)]


def test_one_table_is_made_new_and_the_note_on_the_other_stays(tmp_path: Path) -> None:
    saved = tmp_path / "page.wiki"
    saved.write_text(ANIMAL_PAGE, encoding="utf-8")
    refresh("animal", tmp_path, saved)
    saved.write_text(PITCH_PAGE, encoding="utf-8")
    refresh("pitch", tmp_path, saved)
    assert set(json.loads((tmp_path / "tables.json").read_text(encoding="utf-8"))) == {"animal", "pitch"}
    (tmp_path / "tables.json").write_text("{")
    with pytest.raises(ValueError, match="tables.json is damaged"):
        refresh("pitch", tmp_path, saved)


@pytest.mark.parametrize(
    ("what", "page", "message"),
    [
        ("animal", "Nothing here.", "no table with the columns Animal and Description"),
        ("animal", "{|\n! Animal !! Legs\n|-\n| Dog || 4\n|}", "no table with the columns Animal and Description"),
        ("animal", "{|\n! Animal !! Sound\n|-\n| Dog ||\n|}", r"nothing .* read as a fact; refused: {'no sound': 1}"),
        ("animal", "<table><tr><td>Dog", "no table with the columns Animal and Description"),
        ("pitch", ANIMAL_HTML, "no <timeline> with the ranges; it has to be wikitext"),
        ("pitch", "<timeline>\ncolor:b from:2 till:9 text:bass\n</timeline>", r"does not define \$c1 and"),
        ("plants", "", "The tables are animal and pitch, not 'plants'"),
    ],
)
def test_pages_without_their_table(tmp_path: Path, what: str, page: str, message: str) -> None:
    saved = tmp_path / "page.wiki"
    saved.write_text(page, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        refresh(what, tmp_path / "tables", saved)
    assert not (tmp_path / "tables").exists()


def test_saved_pages_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no saved page .*gone.wiki"):
        refresh("animal", tmp_path, tmp_path / "gone.wiki")
    (tmp_path / "page.wiki").write_bytes("{| käfer".encode("latin-1"))
    with pytest.raises(ValueError, match="page.wiki: not encoded in UTF-8"):
        refresh("animal", tmp_path, tmp_path / "page.wiki")


@given(st.text(alphabet="{}|![]<>-=\n aAnimalSound'\"t&;/*", max_size=120))
def test_no_page_breaks_the_parser(text: str) -> None:
    for page in (f"{{|\n! Animal !! Sound\n|-\n{text}\n|}}", f"<table><tr><th>Animal<th>Sound<tr>{text}"):
        try:
            facts, _ = parse_animal_sounds(page)
        except ValueError as error:
            assert "no table" in str(error)
        else:
            assert all(animal and sound for animal, sound in facts)


Reply = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def wiki(reply: Reply) -> Iterator[tuple[str, list[tuple[dict[str, list[str]], str]]]]:
    """A wiki's API on loopback: its address, and the questions and user agents it was sent."""
    requests: list[tuple[dict[str, list[str]], str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append((parse_qs(urlsplit(self.path).query), self.headers["User-Agent"]))
            reply(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/w/api.php", requests
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


def answer(body: bytes, status: int = 200, length: int | None = None) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def parsed(title: str, text: str) -> bytes:
    return json.dumps({"parse": {"title": title, "pageid": 1, "revid": 1234567, "wikitext": text}}).encode()


@pytest.mark.parametrize(
    ("what", "title", "page", "count"),
    [
        ("animal", "List of animal sounds", ANIMAL_PAGE, 14),
        ("pitch", "Template:Vocal and instrumental pitch ranges", PITCH_PAGE, 5),
    ],
)
def test_the_page_of_a_wiki(tmp_path: Path, what: str, title: str, page: str, count: int) -> None:
    with wiki(answer(parsed(title, page))) as (address, requests):
        report = refresh(what, tmp_path, address)
    assert (report.page, report.revision, report.count) == (title, 1234567, count)
    note = json.loads((tmp_path / "tables.json").read_text(encoding="utf-8"))[what]
    assert (note["source"], note["page"], note["revision"], note["facts"]) == (address, title, 1234567, count)
    ((question, agent),) = requests
    assert question["page"] == [title] and question["action"] == ["parse"]
    assert agent.startswith("audiobert/")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (answer(b'{"error": {"code": "missingtitle", "info": "The page does not exist."}}'), "The page does not exist"),
        (answer(b"busy", 429), "answers 429 Too Many Requests .* Try again later"),
        (answer(b"<html>Please sign in</html>"), "no answer of a MediaWiki API .* is the address right"),
        (answer(b'{"batchcomplete": true}'), "no answer of a MediaWiki API"),
        (answer(b"[]"), "no answer of a MediaWiki API"),
        (answer(b'{"parse": {"title"', length=500), "cannot be reached"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "cannot be reached"),
    ],
)
def test_a_wiki_that_does_not_give_the_page(tmp_path: Path, reply: Reply, message: str) -> None:
    with wiki(reply) as (address, _), pytest.raises(OSError, match=message):
        refresh("animal", tmp_path / "tables", address)
    assert not (tmp_path / "tables").exists()


def test_a_wiki_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikipedia_refresh, "TIMEOUT", 0.2)
    done = threading.Event()
    with wiki(lambda _: done.wait(10) and None) as (address, _):
        with pytest.raises(OSError, match="cannot be reached .*timed out"):
            refresh("animal", tmp_path, address)
        done.set()


def test_no_wiki(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/w/api.php"
        with pytest.raises(OSError, match="cannot be reached for 'List of animal sounds'.*save the page"):
            refresh("animal", tmp_path, address)


@pytest.mark.real_data
@needs_auditorybench
def test_the_published_sets_have_the_same_sentences() -> None:
    """And where both give a direction for a pair of the same names, it is nearly always the same one."""
    folder = Path(os.environ["AUDITORYBENCH_DIR"])
    with open(folder / "animal_wiki.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            (ours,) = animal_rows([(row["animal"], row["description"])])
            assert ours["sentence"] == row["sentence"]
    ranges = {row.name.lower(): row for row in read_pitch_ranges()}
    same: list[bool] = []
    with open(folder / "pitch_wiki.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            first, second = row["span1"], row["span2"]
            (ours,) = pitch_rows([PitchRange(first, 60, 61), PitchRange(second, 70, 71)])
            assert ours["sentence"] == row["sentence"]
            if first.lower() in ranges and second.lower() in ranges:
                try:
                    same.append(direction(ranges[first.lower()], ranges[second.lower()]) == row["answer"])
                except Refusal:
                    continue
    assert len(same) > 2000
    assert sum(same) / len(same) > 0.99
