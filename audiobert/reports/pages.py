"""Pages that are one file: their data stands inside them, and nothing is loaded from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import whole_file

_PAGES = Path(__file__).with_name("pages")
# What all pages have in common, by what stands in its place.
_COMMON = {"@STYLE@": "common.css", "@SCRIPT@": "common.js"}
_DATA_PLACEHOLDER = "@DATA@"


def write_page(template: str, data: Any, path: str | Path) -> Path:
    """
    Writes a page of `audiobert/reports/pages` with its data, as a whole or not at all, and returns its path.

    Args:
        template: the page's file name.
        data: what the page shows, of dicts, lists, strings, numbers and None.
        path: the file to write; its folder is made if it is not there.
    """
    path = Path(path)
    # In ASCII and without "<" nothing can end the script element that holds it, or be read as another. A number that
    # JavaScript does not know ("NaN") is an error here and not a blank page there.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = (_PAGES / template).read_text(encoding="utf-8")
    for placeholder, part in _COMMON.items():
        page = page.replace(placeholder, (_PAGES / part).read_text(encoding="utf-8").rstrip("\n"))
    # The data comes last, as it may hold any text.
    page = page.replace(_DATA_PLACEHOLDER, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(page)
    return path
