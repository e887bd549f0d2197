"""What Wikipedia's pages say: the table of the animal sounds and the timeline of the pitch ranges.

Pages come as wikitext or, for the animals, as HTML too. Both are read as people edit them: with links, notes,
templates, lists within a cell and cells that span rows. What no fact can be made of is counted by its reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from typing import NamedTuple

from ..stages import Refusal
from .facts import AnimalSound, PitchRange

# Templates that show text; every other one (notes, files, icons, dates) is left out. Lists show all their arguments.
TEXT_TEMPLATES = {"lang", "wikt-lang", "linktext", "nowrap", "nobr", "wikt", "wt", "em", "small", "sic"}
LIST_TEMPLATES = {"hlist", "plainlist", "flatlist", "unbulleted list", "ubl", "plain list", "cslist"}
SOUND_COLUMNS = ("description", "sound", "noise")
# Names that say a register alone; the heading above says of what.
REGISTERS = {"bass", "baritone", "tenor", "countertenor", "alto", "contralto", "mezzo-soprano", "soprano", "treble"}
MIDDLE_C = 60

_NAME = re.compile(r"[^\W\d_]+(?:[ '’-]+[^\W\d_]+){0,3}")
_DEFINITION = re.compile(r"Define\s+(\$\w+)\s*=\s*(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"\b(color|from|till|text)\s*:\s*(\"[^\"]*\"|.*?)(?=\s+[a-z]+\s*:|\s*$)", re.IGNORECASE)


class Cell(NamedTuple):
    text: str
    rowspan: int
    colspan: int


def parse_animal_sounds(page: str) -> tuple[list[AnimalSound], Counter[str]]:
    """The animals and their sounds out of a page with a table of the columns Animal and Description (or Sound).

    A cell may name several sounds, set apart by commas, semicolons, slashes, "and", "or" or lines; what stands in
    brackets is left out. Names and sounds are lower-cased, as the benchmark's answers are.

    Args:
        page: wikitext or HTML.

    Returns:
        The facts in the page's order, and how many were refused for each reason: "no animal" and "no sound" (a row
        without), "no plain name of an animal", "no plain word for a sound" (digits, signs, more than four words),
        "stands twice".

    Raises:
        ValueError: the page has no such table.
    """
    tables = list(_html_tables(page) if re.search(r"<(html|body|table)\b", page, re.I) else _wikitext_tables(page))
    facts: dict[AnimalSound, None] = {}
    refused: Counter[str] = Counter()
    found = False
    for rows in map(_grid, tables):
        columns = _find_columns(rows)
        if columns is None:
            continue
        found = True
        header, animal_column, sound_column = columns
        for row in rows[header + 1 :]:
            # A row that repeats the header, or one cell across the table, such as a letter of the alphabet.
            if row == rows[header] or len(set(row)) == 1:
                continue
            try:
                animal = _plain_name(row[animal_column], "animal")
            except Refusal as refusal:
                refused[refusal.reason] += 1
                continue
            for sound in _split_sounds(row[sound_column]) or [""]:
                try:
                    fact = AnimalSound(animal, _plain_name(sound, "sound"))
                except Refusal as refusal:
                    refused[refusal.reason] += 1
                    continue
                if fact in facts:
                    refused["stands twice"] += 1
                facts[fact] = None
    if not found:
        raise ValueError("the page has no table with the columns Animal and Description (or Sound).")
    return list(facts), refused


def parse_pitch_ranges(page: str) -> tuple[list[PitchRange], Counter[str]]:
    """The ranges of instruments and voices out of a page with a timeline, as Wikipedia's template draws them.

    The timeline defines a position for every note (`Define $c1 = 290`), `$c1` being middle C and `$c2` the octave above
    it, and has a line for every bar (`color:b from:$ee till:$e1 text:bass`). Lines in the colours of headings are
    headings; where a bar is called by its register alone ("bass"), the heading says of what ("human voice").

    Args:
        page: wikitext.

    Returns:
        The ranges in the page's order, and how many bars were refused for each reason: "no name", "unknown note",
        "between two notes", "upside-down range", "stands twice".

    Raises:
        ValueError: the page has no timeline, or one that does not define `$c1` and `$c2`.
    """
    timelines = re.findall(r"<timeline[^>]*>(.*?)</timeline>", page, re.DOTALL | re.IGNORECASE)
    if not timelines:
        raise ValueError("the page has no <timeline> with the ranges; it has to be wikitext, not HTML.")
    ranges: dict[str, PitchRange] = {}
    refused: Counter[str] = Counter()
    for timeline in timelines:
        timeline = re.sub(r"#>.*?<#", "", timeline, flags=re.DOTALL)
        # Links first: the address of one may hold the # that begins a comment.
        lines = [_without_markup(line).split("#")[0].strip() for line in timeline.splitlines()]
        positions = {name: float(value) for line in lines for name, value in _DEFINITION.findall(line)}
        if not ("$c1" in positions and positions.get("$c2", 0) > positions["$c1"]):
            raise ValueError("the timeline does not define $c1 and, above it, $c2: its positions cannot be read.")
        heading = ""
        for line in lines:
            fields = {name.lower(): value.strip('" ') for name, value in _ATTRIBUTE.findall(line)}
            if not {"from", "till"} <= fields.keys() or "color" not in fields:
                continue
            name = " ".join(fields.get("text", "").replace("~", " ").split())
            if "head" in fields["color"].lower():
                heading = name
                continue
            try:
                bar = _read_bar(name, heading, fields, positions)
                if bar.name in ranges:
                    raise Refusal("stands twice", bar.name)
            except Refusal as refusal:
                refused[refusal.reason] += 1
            else:
                ranges[bar.name] = bar
    return list(ranges.values()), refused


def _read_bar(name: str, heading: str, fields: dict[str, str], positions: dict[str, float]) -> PitchRange:
    if not name:
        raise Refusal("no name", str(fields))
    if name.lower() in REGISTERS and heading:
        family = heading.split()[-1]
        # "recorders" to "recorder", but "brass" as it is.
        name = f"{name} {re.sub('(?<!s)s$', '', family)}"
    lowest, highest = (_note_at(fields[end], positions) for end in ("from", "till"))
    if lowest > highest:
        raise Refusal("upside-down range", name)
    return PitchRange(name, lowest, highest)


def _note_at(position: str, positions: dict[str, float]) -> int:
    try:
        value = positions[position] if position.startswith("$") else float(position)
    except (KeyError, ValueError):
        raise Refusal("unknown note", position) from None
    note = MIDDLE_C + 12 * (value - positions["$c1"]) / (positions["$c2"] - positions["$c1"])
    # Positions are whole numbers, which an octave need not divide into twelve evenly.
    if abs(note - round(note)) > 0.2:
        raise Refusal("between two notes", position)
    if not 0 <= round(note) <= 127:
        raise Refusal("unknown note", position)
    return round(note)


def _find_columns(rows: list[list[str]]) -> tuple[int, int, int] | None:
    """The row of the header and the columns of the animal and the sound."""
    for number, row in enumerate(rows):
        titles = [title.strip().lower() for title in row]
        animals = [column for column, title in enumerate(titles) if title.startswith("animal")]
        sounds = [column for column, title in enumerate(titles) if title.startswith(SOUND_COLUMNS)]
        if animals and sounds:
            return number, animals[0], sounds[0]
    return None


def _plain_name(text: str, what: str) -> str:
    name = " ".join(_without_brackets(text).split()).strip(" \"'“”‘’.").replace("’", "'").lower()
    if not name:
        raise Refusal(f"no {what}")
    if not _NAME.fullmatch(name):
        raise Refusal("no plain name of an animal" if what == "animal" else "no plain word for a sound", name)
    return name


def _split_sounds(text: str) -> list[str]:
    parts = re.split(r"[,;/•·\n]|\b(?:and|or)\b", _without_brackets(text))
    return [part for part in parts if part.strip(" \"'“”‘’.")]


def _without_brackets(text: str) -> str:
    """Without notes such as [1] and remarks such as (when angry)."""
    return re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", text)


def _grid(rows: list[list[Cell]]) -> list[list[str]]:
    """The texts of a table, with a cell that spans rows or columns in each of its places; all rows equally long."""
    grid: dict[tuple[int, int], str] = {}
    for y, cells in enumerate(rows):
        x = 0
        for cell in cells:
            while (y, x) in grid:
                x += 1
            for dy in range(min(cell.rowspan, len(rows) - y)):
                for dx in range(cell.colspan):
                    grid.setdefault((y + dy, x + dx), cell.text)
            x += cell.colspan
    width = max((x for _, x in grid), default=-1) + 1
    return [[grid.get((y, x), "") for x in range(width)] for y in range(len(rows))]


def _span(attributes: dict[str, str | None], name: str) -> int:
    value = (attributes.get(name) or "1").strip()
    # HTML's own limit for columns; a larger number is a slip.
    return min(max(int(value), 1), 1000) if value.isdecimal() else 1


def _wikitext_tables(page: str) -> Iterator[list[list[Cell]]]:
    """The tables of a page, each as rows of cells; tables within tables are not understood."""
    text = _without_markup(page)
    for table in re.findall(r"^[ \t:]*\{\|(.*?)^[ \t]*\|\}", text, re.DOTALL | re.MULTILINE):
        # The first line holds the attributes of the table.
        lines = table.splitlines()[1:]
        rows: list[list[str]] = [[]]
        for line in lines:
            mark = line.lstrip()[:2]
            if mark == "|-":
                rows.append([])
            elif mark == "|+":
                continue
            elif mark[:1] in ("|", "!"):
                separator = r"\|\||!!" if mark[0] == "!" else r"\|\|"
                rows[-1] += re.split(separator, line.lstrip()[1:])
            elif rows[-1]:
                rows[-1][-1] += f"\n{line}"
        yield [[_wikitext_cell(cell) for cell in row] for row in rows if row]


def _wikitext_cell(source: str) -> Cell:
    attributes, bar, text = source.partition("|")
    if not bar:
        attributes, text = "", source
    found = dict(re.findall(r"(rowspan|colspan)\s*=\s*[\"']?\s*(\d+)", attributes.lower()))
    text = "\n".join(line.lstrip("*#:; ") for line in text.splitlines())
    return Cell(text.strip(), _span(found, "rowspan"), _span(found, "colspan"))


def _without_markup(text: str) -> str:
    """Wikitext with its tables as they are, but links, templates and styles as the text they show."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<ref\b[^>]*?/>|<ref\b.*?</ref\s*>", "", text, flags=re.DOTALL | re.IGNORECASE)
    # From the inside out: a template or a link may stand within another one.
    before = None
    while before != text:
        before = text
        text = re.sub(r"\[\[([^\[\]]*)\]\]", _shown_by_link, text)
        text = re.sub(r"\{\{([^{}]*)\}\}", _shown_by_template, text)
    text = re.sub(r"\[(?:https?:)?//\S+\s+([^\]]*)\]", r"\1", text)
    text = re.sub(r"'{2,}", "", text)
    text = re.sub(r"<br\s*/?>", ", ", text, flags=re.IGNORECASE)
    return unescape(re.sub(r"</?[a-z][^<>]*>", "", text, flags=re.IGNORECASE)).replace("\xa0", " ")


def _shown_by_link(match: re.Match[str]) -> str:
    target, *shown = match[1].split("|")
    if re.match(r"\s*(file|image|media|category)\s*:", target, re.IGNORECASE):
        return ""
    return shown[-1] if shown and shown[-1].strip() else target.split(":")[-1].split("#")[0]


def _shown_by_template(match: re.Match[str]) -> str:
    name, *arguments = match[1].split("|")
    name = name.strip().lower()
    shown = [re.sub(r"^\s*\d+\s*=", "", argument).strip() for argument in arguments]
    shown = [argument for argument in shown if not re.match(r"[\w-]+\s*=", argument)]
    if name in LIST_TEMPLATES:
        return ", ".join(line.strip("* ") for argument in shown for line in argument.splitlines() if line.strip("* "))
    if name in TEXT_TEMPLATES and shown:
        return shown[-1]
    return ""


def _html_tables(page: str) -> Iterator[list[list[Cell]]]:
    reader = _TableReader()
    reader.feed(page)
    reader.close()
    yield from reader.tables


class _TableReader(HTMLParser):
    """Collects the tables of a page; a table within a cell of another one counts as a table of its own."""

    SKIPPED = ("sup", "style", "script", "audio", "video")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[list[list[Cell]]] = []
        # The tables that are open, the innermost last, and the cell that is open in each: its attributes and its text.
        self.open: list[list[list[Cell]]] = []
        self.cells: list[tuple[dict[str, str | None], list[str]] | None] = []
        self.skipped: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.SKIPPED:
            self.skipped.append(tag)
        elif tag == "table":
            self.open.append([])
            self.cells.append(None)
            self.tables.append(self.open[-1])
        elif self.open and tag in ("tr", "td", "th"):
            # The end of a cell may go without saying.
            self.end_cell()
            if tag == "tr" or not self.open[-1]:
                self.open[-1].append([])
            if tag != "tr":
                self.cells[-1] = (dict(attrs), [])
        elif tag in ("br", "li", "p", "div"):
            self.add("\n")

    def handle_endtag(self, tag: str) -> None:
        if self.skipped:
            if tag == self.skipped[-1]:
                self.skipped.pop()
        elif self.open and tag in ("tr", "td", "th", "table"):
            self.end_cell()
            if tag == "table":
                self.open.pop()
                self.cells.pop()

    def handle_data(self, data: str) -> None:
        # Line breaks of the source are spaces; those that are shown come from tags.
        self.add(re.sub(r"\s+", " ", data))

    def add(self, text: str) -> None:
        if not self.skipped and self.cells and self.cells[-1] is not None:
            self.cells[-1][1].append(text)

    def end_cell(self) -> None:
        if self.cells[-1] is not None:
            attributes, texts = self.cells[-1]
            text = "".join(texts).strip()
            self.open[-1][-1].append(Cell(text, _span(attributes, "rowspan"), _span(attributes, "colspan")))
            self.cells[-1] = None
