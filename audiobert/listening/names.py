"""Invented names: words that can be said and mean nothing, so that what is asked about them is only to be heard."""

from __future__ import annotations

import random
import zlib
from collections.abc import Collection

_ONSETS = (
    *("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "bl", "br", "cr", "dr", "fl"),
    *("fr", "gl", "gr", "kl", "pl", "pr", "sk", "sl", "sm", "sn", "sp", "st", "tr", "tw", "sh", "ch", "th", "qu", "vr"),
)
# Mostly one letter: a tokenizer has few pieces for such names.
_VOWELS = ("a", "a", "e", "e", "i", "i", "o", "o", "u", "u", "ee", "oo")
_CODAS = (
    *("b", "ck", "d", "ff", "g", "ll", "m", "n", "p", "sh", "ss", "t", "th", "x", "zz", "ft", "lk", "lm", "lt", "mp"),
    *("nd", "ng", "nk", "nt", "rb", "rd", "rk", "rm", "rn", "rp", "rt", "sk", "st"),
)
# Of a second syllable, which stands unstressed.
_ENDINGS = ("a", "o", "er", "en", "et", "ick", "im", "on", "ol", "us", "ab", "ish")

# One name in five is never given to a sound in training.
HELD_OUT_NAMES = 5
# Draws without a new name, after which there are no more.
_TRIES = 200


def invented_names(count: int, seed: int, taken: Collection[str] = (), held_out: bool = False) -> list[str]:
    """
    Names such as "blick" and "droother", of one or two syllables, drawn by the seed.

    Args:
        count: how many.
        seed: of the draw; the same seed draws the same names, and more of them if `count` is larger.
        taken: words that mean something or are used otherwise, in any case: labels, spans, the words of a vocabulary.
        held_out: names that are never drawn without it: what trains on the others has not seen these.

    Returns:
        Distinct names in lower case, none of them in `taken`.

    Raises:
        ValueError: there are not as many.
    """
    refused = {word.casefold() for word in taken}
    draw = random.Random(f"names {seed}")
    names: dict[str, None] = {}
    tries = 0
    while len(names) < count:
        name = _name(draw)
        if name not in names and name not in refused and is_held_out_name(name) == held_out:
            names[name], tries = None, 0
        elif (tries := tries + 1) == _TRIES:
            raise ValueError(
                f"There are no {count} invented names beside the {len(refused)} taken words: ask for fewer."
            )
    return list(names)


def is_held_out_name(name: str) -> bool:
    """Whether a name is kept for measuring: by its letters, so that nobody has to keep a list."""
    return zlib.crc32(name.encode()) % HELD_OUT_NAMES == 0


def _name(draw: random.Random) -> str:
    syllable = draw.choice(_ONSETS) + draw.choice(_VOWELS)
    ending = draw.choice(_ENDINGS) if draw.random() < 0.3 else ""
    return syllable + draw.choice(_CODAS) + ending
