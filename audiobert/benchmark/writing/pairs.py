"""Prompts that compare the pitch of two sounds: drawn pairs, written and judged by an LLM (paper, figure 2, c)."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from ...data.auditorybench import MASK, PITCH_ANSWERS
from ...llm.client import Sampling
from ...llm.replies import DECLINED, lines_of, shorten, value_of, words_of
from ...llm.templates import fill
from ..dataset.splitting import normalise_sentence
from ..stages import Refusal
from .categories import record_values
from .checks import check_sentence, find_span, labelled_values, reply_to

if TYPE_CHECKING:
    from ...llm.client import ChatModel

TEMPLATE = "pitch_prompt.txt"
PLACEHOLDERS = tuple(f"{name}_{side}" for side in (1, 2) for name in ("title", "tags", "description", "category"))
BLIND_TEMPLATE = "pitch_blind.txt"
BLIND_PLACEHOLDERS = ("prompt", "span_1", "span_2")
# As in the authors' code; of both requests.
SAMPLING = Sampling(max_tokens=100, temperature=0.6, top_p=0.9, seed=42)

# The main categories whose recordings are compared.
PITCH_ROOTS = ("music", "object", "environment")
THRESHOLD = 0.10
MAX_PAIRS = 50_000


class Candidate(NamedTuple):
    """A recording that waits for a partner; `order` draws its place in the lot."""

    order: bytes
    id: str
    hz: float
    values: tuple[str, ...]


class PitchPrompt(NamedTuple):
    """A prompt that passed every check of its form; `spans` are written as `sentence` has them."""

    sentence: str
    answer: str
    spans: tuple[str, str]


def make_pairs(
    rows: Iterable[dict], *, seed: int, max_pairs: int = MAX_PAIRS, threshold: float = THRESHOLD
) -> Iterator[dict]:
    """Draws random pairs of recordings with different pitches, within each main category.

    Every recording stands in one row at most. Pairs whose pitches differ too little are drawn again. The result depends
    on the seed and on which recordings there are, not on their order. Takes O(n log n) for n recordings, and keeps of
    each only the text that a prompt shows.

    Args:
        rows: records with `category` and `pitch_hz`.
        seed: of the draw.
        max_pairs: at most so many pairs for each main category.
        threshold: by which share of the lower pitch the higher one must exceed it, at least.

    Returns:
        For each pair `recordings` (list of the two ids), `root` (main category), `first` and `second` (title, tags,
        description and category of either), `pitch_1` and `pitch_2` (Hz), `refusal` (None) and `detail`. Pairs beyond
        `max_pairs`, and recordings left without a partner, follow as rows with `recordings`, `root` and a `refusal`.

    Raises:
        ValueError: an id stands there twice, or a pitch is not positive and finite.
    """
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for row in rows:
        groups[row["category"].partition("/")[0]].append(candidate_of(row, seed))
    for root, candidates in sorted(groups.items()):
        candidates.sort()
        for one, other in zip(candidates, candidates[1:], strict=False):
            if one.id == other.id:
                raise ValueError(f"The recording {one.id!r} stands twice among those to be paired.")
        pairs, left = pair_off(candidates, threshold)
        for first, second in pairs[:max_pairs]:
            yield {
                "recordings": [first.id, second.id],
                "root": root,
                "first": dict(zip(("title", "tags", "description", "category"), first.values, strict=True)),
                "second": dict(zip(("title", "tags", "description", "category"), second.values, strict=True)),
                "pitch_1": first.hz,
                "pitch_2": second.hz,
                "refusal": None,
                "detail": "",
            }
        for pair in pairs[max_pairs:]:
            yield refused([candidate.id for candidate in pair], root, "more pairs than asked for")
        for candidate in left:
            yield refused([candidate.id], root, "left without a partner")


def candidate_of(row: dict, seed: int) -> Candidate:
    hz = row["pitch_hz"]
    if not 0 < hz < math.inf:
        raise ValueError(f"The pitch of the recording {row['id']!r} must be positive and finite, got {hz!r}.")
    # Drawn for each recording by itself, so that neither the order nor the number of the others changes it.
    order = blake2b(f"{seed}\0{row['id']}".encode(errors="surrogatepass"), digest_size=12).digest()
    return Candidate(order, row["id"], hz, (*record_values(row).values(), row["category"]))


def refused(recordings: list[str], root: str, reason: str) -> dict:
    return {"recordings": recordings, "root": root, "refusal": reason, "detail": ""}


def pair_off(
    candidates: list[Candidate], threshold: float
) -> tuple[list[tuple[Candidate, Candidate]], list[Candidate]]:
    """Pairs of different pitch out of candidates in random order, and those for whom none was found.

    Neighbours are paired. Those who cannot be are paired among themselves, far pitches first, and the rest exchange
    partners with pairs that were made.
    """

    def far(one: Candidate, other: Candidate) -> bool:
        return max(one.hz, other.hz) > min(one.hz, other.hz) * (1 + threshold)

    def take(waiting: deque[Candidate], partner: Candidate) -> Candidate | None:
        if far(waiting[-1], partner):
            return waiting.pop()
        return waiting.popleft() if far(waiting[0], partner) else None

    drawn = list(zip(candidates[::2], candidates[1::2], strict=False))
    pairs = [pair for pair in drawn if far(*pair)]
    again = [candidate for pair in drawn if not far(*pair) for candidate in pair] + candidates[2 * len(drawn) :]

    # The lower half meets the upper half, each in the order of pitch: no other way gives more pairs.
    again.sort(key=lambda candidate: (candidate.hz, candidate.order))
    lower, upper = again[: len(again) // 2], again[len(again) // 2 :]
    left, met = [], 0
    for candidate in upper:
        if met < len(lower) and far(lower[met], candidate):
            pairs.append((lower[met], candidate))
            met += 1
        else:
            left.append(candidate)
    left += lower[met:]

    # Those left all have about the same pitch: a pair of which neither has it takes in two of them, the lowest or the
    # highest for each.
    waiting = deque(sorted(left, key=lambda candidate: (candidate.hz, candidate.order)))
    kept = []
    for one, other in pairs:
        if len(waiting) > 1 and (partner := take(waiting, one)):
            if second := take(waiting, other):
                kept += [(one, partner), (other, second)]
                continue
            (waiting.append if partner.hz >= waiting[-1].hz else waiting.appendleft)(partner)
        kept.append((one, other))
    # In the order of the lot again, within a pair too: else the lower one would come first more often.
    return sorted(tuple(sorted(pair)) for pair in kept), sorted(waiting)


def compare(rows: Iterable[dict], chat: ChatModel, template: str, blind_template: str) -> Iterator[dict]:
    """Asks for a prompt on every pair, and, in a request of its own, for the answer; one row for each, in their order.

    Neither request tells what was measured, and the second shows nothing but the prompt and its spans. Both answers
    have to agree with the measured pitches.

    Args:
        rows: pairs, as `make_pairs` gives them.
        chat: who is asked.
        template: the instruction for writing, with the placeholders of `PLACEHOLDERS`.
        blind_template: the instruction for answering, with the placeholders of `BLIND_PLACEHOLDERS`.

    Returns:
        Rows with `recordings` (list of two ids), `task` ("pitch"), `root`, `pitch_1` and `pitch_2` (Hz), `sentence`
        (with one `[MASK]`), `answer` ("higher" or "lower"), `spans` (list of two; these three None if the first reply
        was no good prompt), `reply` and `blind_reply` (as the model wrote them, None if not asked), `refusal` and
        `detail`.
    """

    async def work(row: dict) -> dict:
        result = {
            "recordings": row["recordings"],
            "task": "pitch",
            "root": row["root"],
            "pitch_1": row["pitch_1"],
            "pitch_2": row["pitch_2"],
            "sentence": None,
            "answer": None,
            "spans": None,
            "reply": None,
            "blind_reply": None,
            "refusal": None,
            "detail": "",
        }
        measured = "higher" if row["pitch_1"] > row["pitch_2"] else "lower"
        try:
            result["reply"] = await reply_to(chat, fill(template, pair_values(row)), SAMPLING)
            prompt = parse_pitch_prompt(result["reply"])
            result.update(sentence=prompt.sentence, answer=prompt.answer, spans=list(prompt.spans))
            if prompt.answer != measured:
                raise Refusal("the answer is not the direction measured", f"measured {measured}")
            blind = {"prompt": prompt.sentence, "span_1": prompt.spans[0], "span_2": prompt.spans[1]}
            result["blind_reply"] = await reply_to(chat, fill(blind_template, blind), SAMPLING)
            if parse_direction(result["blind_reply"]) != measured:
                raise Refusal("the blind answer is not the direction measured", f"measured {measured}")
        except Refusal as refusal:
            result["refusal"], result["detail"] = refusal.reason, refusal.detail
        return result

    return chat.map(work, rows)


def refuse_contradictions(rows: Iterable[dict]) -> list[dict]:
    """Refuses prompts that other recordings answer the other way round: nobody can know which are meant."""
    rows = list(rows)
    answers: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        answers[normalise_sentence(row["sentence"])].add(row["answer"])
    contradicted = "other recordings of the same prompt say the opposite"
    return [
        {**row, "refusal": contradicted} if len(answers[normalise_sentence(row["sentence"])]) > 1 else row
        for row in rows
    ]


def pair_values(row: dict) -> dict[str, str]:
    sides = ((1, row["first"]), (2, row["second"]))
    return {f"{name}_{side}": value for side, values in sides for name, value in values.items()}


def parse_pitch_prompt(reply: str) -> PitchPrompt:
    """Reads and checks a reply of the lines "Prompt:", "Answer:", "Span 1:" and "Span 2:".

    Raises:
        Refusal: the model could not write a prompt, the form is another, or a check failed.
    """
    sentence, answer, *spans = labelled_values(reply, ("Prompt", "Answer", "Span 1", "Span 2"))
    sentence, answer = check_sentence(sentence), answer.rstrip(".").lower()
    if answer not in PITCH_ANSWERS:
        raise Refusal("the answer is not higher or lower", shorten(answer))
    if not set(PITCH_ANSWERS).isdisjoint(words_of(sentence)):
        raise Refusal("higher or lower stands in the prompt", shorten(sentence))
    firsts, seconds = (find_span(sentence, span) for span in spans)
    mask = sentence.index(MASK)
    # "First ... [MASK] ... second" is the one order in which the answer tells how the first compares with the second;
    # so the spans neither change places nor overlap.
    before = [place for place in firsts if place[1] <= mask]
    after = [place for place in seconds if place[0] > mask]
    if not before or not after:
        raise Refusal("the [MASK] does not stand between the spans", shorten(sentence))
    first, second = (sentence[start:end] for start, end in (before[-1], after[0]))
    if first.lower() == second.lower():
        raise Refusal("both spans are the same", first)
    return PitchPrompt(sentence, answer, (first, second))


def parse_direction(reply: str) -> str:
    """`higher` or `lower` out of a reply of this one word.

    Raises:
        Refusal: the model could not tell, or the reply is something else.
    """
    lines = lines_of(reply)
    answer = value_of(lines[0], "answer").rstrip(".").lower() if len(lines) == 1 else ""
    if answer in DECLINED:
        raise Refusal("the model could not answer blind")
    if answer not in PITCH_ANSWERS:
        raise Refusal("the blind answer is not higher or lower", shorten(" | ".join(lines)))
    return answer
