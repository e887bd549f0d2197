"""New tables for the Wikipedia sets, out of Wikipedia's own pages."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from ... import __version__
from ...files import whole_file
from .facts import ANIMAL_COLUMNS, ANIMAL_TABLE, PITCH_COLUMNS, PITCH_TABLE, note_name
from .pages import parse_animal_sounds, parse_pitch_ranges

API = "https://en.wikipedia.org/w/api.php"
# "Range (music)" shows the ranges by this template.
PAGES = {"animal": "List of animal sounds", "pitch": "Template:Vocal and instrumental pitch ranges"}
NOTES_NAME = "tables.json"
TIMEOUT = 30.0
# Wikimedia asks every program to say what it is.
USER_AGENT = f"audiobert/{__version__} (refresh of the AuditoryBench Wikipedia tables) Python-urllib"


@dataclass(frozen=True)
class Refreshed:
    """A table that was made: `count` facts are in it, the others of the page were refused."""

    path: Path
    page: str
    revision: int | None
    count: int
    refused: dict[str, int]


@dataclass(frozen=True)
class Page:
    title: str
    text: str
    revision: int | None
    source: str


def refresh(what: str, folder: str | Path, source: str | Path | None = None) -> Refreshed:
    """Makes the table of a Wikipedia set anew, with its source, date and revision in the folder's `tables.json`.

    Nothing in the folder changes unless the page could be read.

    Args:
        what: "animal" for the animals and their sounds, "pitch" for the ranges of instruments and voices.
        folder: where the table is written; made if it is missing.
        source: a saved page (wikitext, for the animals also HTML) or the address of a MediaWiki `api.php`;
            the English Wikipedia if omitted.

    Raises:
        ValueError: `what` is neither, the page has no table to read, or nothing in it is a fact.
        OSError: the saved page or the wiki cannot be read, or the table cannot be written.
    """
    if what not in PAGES:
        raise ValueError(f"The tables are {' and '.join(PAGES)}, not {what!r}.")
    if source is None or str(source).startswith(("http://", "https://")):
        page = fetch_page(PAGES[what], str(source or API))
    else:
        page = read_page(Path(source))
    name, columns = (ANIMAL_TABLE, ANIMAL_COLUMNS) if what == "animal" else (PITCH_TABLE, PITCH_COLUMNS)
    rows: Iterable[tuple[str, ...]]
    try:
        if what == "animal":
            rows, refused = parse_animal_sounds(page.text)
        else:
            ranges, refused = parse_pitch_ranges(page.text)
            rows = [(row.name, note_name(row.lowest), note_name(row.highest)) for row in ranges]
    except ValueError as error:
        raise ValueError(f"{page.source}: {error}") from error
    if not rows:
        raise ValueError(f"{page.source}: nothing in the page could be read as a fact; refused: {dict(refused)}.")

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    notes = read_notes(folder)
    notes[what] = {
        "table": name,
        "source": page.source,
        "page": page.title,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "revision": page.revision,
        "note": "Facts read from the page by audiobert. The page's text is under CC BY-SA 4.0.",
        "facts": len(rows),
        "refused": dict(sorted(refused.items())),
    }
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([columns, *rows])
    with whole_file(folder / name) as file:
        file.write(table.getvalue())
    with whole_file(folder / NOTES_NAME) as file:
        file.write(json.dumps(notes, ensure_ascii=False, indent=2) + "\n")
    return Refreshed(folder / name, page.title, page.revision, len(rows), dict(refused))


def read_page(path: Path) -> Page:
    """A page saved by a browser or copied out of the editor; which revision it was is not known."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no saved page {path}.")
    try:
        return Page(path.stem, path.read_text(encoding="utf-8-sig"), None, f"the saved page {path.name}")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not encoded in UTF-8 ({error.reason}); save it as UTF-8.") from error


def fetch_page(title: str, api: str = API) -> Page:
    """The wikitext of a page, from a wiki's API.

    By `urllib`: it is one request without a token, and Hugging Face's client would refuse it in the Hub's offline mode.

    Raises:
        OSError: the wiki does not answer, in time or at all, or answers something else; or there is no such page.
    """
    question = {
        "action": "parse",
        "page": title,
        "prop": "wikitext|revid",
        "redirects": 1,
        "format": "json",
        "formatversion": 2,
    }
    request = Request(f"{api}?{urlencode(question)}", headers={"User-Agent": USER_AGENT})
    remedy = "Try again later, or save the page and name the file as the source."
    try:
        with urlopen(request, timeout=TIMEOUT) as response:
            answer = json.load(response)
        if "error" not in answer:
            parsed = answer["parse"]
            return Page(str(parsed["title"]), str(parsed["wikitext"]), int(parsed["revid"]), api)
        reason = str(answer["error"].get("info", answer["error"]))
    except HTTPError as error:
        raise OSError(f"{api} answers {error.code} {error.reason} for {title!r}. {remedy}") from error
    # HTTPException: the connection breaks off within the answer.
    except (OSError, HTTPException) as error:
        raise OSError(f"{api} cannot be reached for {title!r}: {error}. {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(f"{api} gives no answer of a MediaWiki API for {title!r}; is the address right?") from error
    raise OSError(f"{api} has no page {title!r} for us: {reason} {remedy}")


def read_notes(folder: Path) -> dict[str, dict]:
    """Where each table of a folder is from; nothing if the folder has none."""
    path = folder / NOTES_NAME
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it.") from error
