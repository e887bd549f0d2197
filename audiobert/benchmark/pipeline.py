"""The build of a benchmark, stage after stage, in one folder (paper, figure 2).

records -> categories -> animals ----------------------> review -> dataset
                      -> pitches -> pairs -> comparisons --------->
                                        Wikipedia's tables ------->
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..llm.templates import load_template
from ..locks import locked
from .dataset.publication import Publication, StageCount, write_dataset
from .dataset.splitting import split_rows
from .people.review import read_decisions, write_review
from .stages import NO_REPLY, Shard, StageReport, load_report, merge_stage, read_rows, run_stage, write_rows
from .wikipedia import facts as wikipedia
from .wikipedia.refresh import read_notes
from .writing import TEMPLATES, animals, categories, pairs

if TYPE_CHECKING:
    from ..llm.client import ChatModel, Sampling
    from .pitch import PitchSettings
    from .sources.records import RecordSource

STAGES = ("records", "categories", "animals", "pitches", "pairs", "comparisons")
# What each stage but the first reads.
READ_BY = {
    "categories": "records",
    "animals": "categories",
    "pitches": "categories",
    "pairs": "pitches",
    "comparisons": "pairs",
}
LLM_STAGES = ("categories", "animals", "comparisons")
SHARDED_STAGES = ("categories", "animals", "pitches", "comparisons")
ANIMAL_ROOT = "animal"
SAME_PROMPT = "the same prompt as another recording's"


class BenchmarkBuild:
    """The folder of a build and its stages; each can be run again and goes on where it stopped.

    Every stage raises FileNotFoundError where the one before it is missing, ValueError where the folder holds it made
    with other settings, and OSError as `run_stage` does or where another process is at work on it (see `claimed`).

    Args:
        out: the folder; the stages lie in `out/stages`, the dataset in `out` itself.
        templates: a folder whose files replace the package's templates of the same name; the package's if omitted.

    Raises:
        ValueError: there is no template in `templates`; or `out` is a file, or the folder that the process runs in,
            whose README.md and other files the dataset's would replace.
    """

    def __init__(self, out: str | Path, templates: str | Path | None = None) -> None:
        self.out = Path(out)
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"{self.out} is a file; name a folder for the benchmark.")
        if self.out.resolve() == Path.cwd() and not (self.out / "stages").is_dir():
            raise ValueError("The benchmark needs a folder of its own, not the one that you are in; name another.")
        self._is_claimed = False
        self.templates = None if templates is None else Path(templates)
        names = (categories.TEMPLATE, animals.TEMPLATE, animals.STOP_LIST, pairs.TEMPLATE)
        names = (*names, pairs.BLIND_TEMPLATE)
        if self.templates is not None and not any((self.templates / name).is_file() for name in names):
            raise ValueError(f"{self.templates} holds none of the templates {', '.join(names)}.")

    def path(self, stage: str) -> Path:
        return self.out / "stages" / f"{stage}.jsonl"

    @property
    def replies(self) -> Path:
        """The folder of the logs of the LLM's replies."""
        return self.out / "stages" / "replies"

    @contextmanager
    def claimed(self, stage: str | None = None, shard: Shard | None = None) -> Iterator[None]:
        """Keeps other processes out of this folder, or, beside those that claim other stages or shards, out of one.

        Stages claim what they write; to be held over several of them.

        Raises:
            OSError: another process is at work there.
        """
        if self._is_claimed:
            yield
            return
        taken = f"Another process is at work in {self.out}; wait for its end, or name another folder."
        with ExitStack() as held:
            held.enter_context(locked(self.out / "stages" / "build.lock", taken, shared=stage is not None))
            if stage is not None:
                path = self.path(stage) if shard is None else shard.path(self.path(stage))
                held.enter_context(locked(path.with_suffix(".lock"), taken))
            self._is_claimed = True
            try:
                yield
            finally:
                self._is_claimed = False

    def is_finished(self, source: RecordSource) -> bool:
        """Whether every stage is done, of what lies there now, and no row waits for a reply."""
        try:
            reports = self.reports()
        except (FileNotFoundError, ValueError):
            return False
        waits = any(NO_REPLY in report["refused"] for report in reports.values())
        return not waits and reports["records"]["inputs"] == {"source": source.fingerprint()}

    def records(self, source: RecordSource) -> StageReport:
        """Lists the recordings with their texts; those without text are refused."""
        with self.claimed():
            return run_stage(
                self.path("records"),
                source.records(),
                lambda records: (record.to_row() for record in records),
                settings={"source": source.name},
                inputs={"source": source.fingerprint()},
            )

    def categories(self, chat: ChatModel, shard: Shard | None = None) -> StageReport:
        """Asks the LLM for the category of every record, broad to narrow (figure 2, a)."""
        template = self.template(categories.TEMPLATE, categories.PLACEHOLDERS)
        with self.claimed("categories", shard):
            return run_stage(
                self.path("categories"),
                read_rows(self.path("records")),
                lambda rows: categories.categorise(rows, chat, template),
                settings=settings_of(chat, categories.SAMPLING, {categories.TEMPLATE: template}),
                inputs=self.inputs("categories"),
                total=lambda: self.report("records")["kept"],
                shard=shard,
            )

    def animals(self, chat: ChatModel, shard: Shard | None = None) -> StageReport:
        """Asks the LLM for a prompt on every record of an animal (figure 2, b)."""
        template = self.template(animals.TEMPLATE, animals.PLACEHOLDERS)
        stop_list = animals.load_stop_list(self.own(animals.STOP_LIST))
        texts = {animals.TEMPLATE: template, animals.STOP_LIST: "\n".join(sorted(stop_list))}
        with self.claimed("animals", shard):
            return run_stage(
                self.path("animals"),
                self.rows_under((ANIMAL_ROOT,)),
                lambda rows: animals.animal_prompts(rows, chat, template, stop_list),
                settings=settings_of(chat, animals.SAMPLING, texts),
                inputs=self.inputs("animals"),
                total=lambda: sum(1 for _ in self.rows_under((ANIMAL_ROOT,))),
                shard=shard,
            )

    def pitches(
        self, source: RecordSource, settings: PitchSettings, num_proc: int = 1, shard: Shard | None = None
    ) -> StageReport:
        """Measures the pitch of every record of music, objects and environment (figure 2, c)."""
        from .pitch import measure_pitches

        with self.claimed("pitches", shard):
            return run_stage(
                self.path("pitches"),
                self.rows_under(pairs.PITCH_ROOTS),
                lambda rows: measure_pitches(source.audio_of(rows), settings, num_proc),
                settings=asdict(settings),
                inputs=self.inputs("pitches"),
                total=lambda: sum(1 for _ in self.rows_under(pairs.PITCH_ROOTS)),
                shard=shard,
            )

    def pairs(self, seed: int = 0, max_pairs: int = pairs.MAX_PAIRS) -> StageReport:
        """Draws pairs of recordings whose pitches differ by more than 10 %; a recording left over is a row as well."""
        with self.claimed():
            return write_rows(
                self.path("pairs"),
                pairs.make_pairs(read_rows(self.path("pitches")), seed=seed, max_pairs=max_pairs),
                settings={"seed": seed, "max_pairs": max_pairs},
                inputs=self.inputs("pairs"),
            )

    def comparisons(self, chat: ChatModel, shard: Shard | None = None) -> StageReport:
        """Asks the LLM for a prompt on every pair, and then, blind, for its answer (figure 2, c)."""
        template = self.template(pairs.TEMPLATE, pairs.PLACEHOLDERS)
        blind = self.template(pairs.BLIND_TEMPLATE, pairs.BLIND_PLACEHOLDERS)
        texts = {pairs.TEMPLATE: template, pairs.BLIND_TEMPLATE: blind}
        with self.claimed("comparisons", shard):
            return run_stage(
                self.path("comparisons"),
                read_rows(self.path("pairs")),
                lambda rows: pairs.compare(rows, chat, template, blind),
                settings=settings_of(chat, pairs.SAMPLING, texts),
                inputs=self.inputs("comparisons"),
                total=lambda: self.report("pairs")["kept"],
                shard=shard,
            )

    def merge(self, stage: str, count: int) -> StageReport:
        """Unites the `count` shards of a stage into the file of a run without shards."""
        if stage not in SHARDED_STAGES:
            raise ValueError(f"The stages with shards are {', '.join(SHARDED_STAGES)}, not {stage!r}.")
        with self.claimed():
            return merge_stage(self.path(stage), count)

    def review(self) -> tuple[Path, Path]:
        """Writes the sheet for the human filter of the animal prompts, as CSV and as a page, into `out/review`."""
        with self.claimed("review"):
            prompts, _ = animals.merge_duplicates(read_rows(self.path("animals")))
            return write_review(prompts, self.out / "review")

    def publish(self, decisions: str | Path | None = None, seed: int = 0, grouped: bool = True) -> Publication:
        """Merges equal prompts, applies the review, adds Wikipedia's sets, splits, and writes the dataset.

        Args:
            decisions: the sheet of `review`, filled in; without it all prompts are published, and the card says so.
            seed: of the split.
            grouped: see `split_rows`.

        Raises:
            ValueError: a stage was made of other rows than those that lie there now, for instance of a recording that
                has been withdrawn.
        """
        with self.claimed():
            return self._publish(decisions, seed, grouped)

    def _publish(self, decisions: str | Path | None, seed: int, grouped: bool) -> Publication:
        reports = self.reports()
        counts = [stage_count(report) for report in reports.values()]
        counts.insert(STAGES.index("categories") + 1, self.main_categories())
        prompts, merged = animals.merge_duplicates(read_rows(self.path("animals")))
        counts.append(count_of("animal prompts", len(prompts), {SAME_PROMPT: merged}))
        if decisions is not None:
            prompts = list(kept_of("review", read_decisions(decisions, prompts)[0], counts))
        compared, merged = animals.merge_duplicates(read_rows(self.path("comparisons")))
        counts.append(count_of("pitch prompts", len(compared), {SAME_PROMPT: merged}))
        compared = list(kept_of("contradictions", pairs.refuse_contradictions(compared), counts))
        sounds = wikipedia.read_animal_sounds(self.wikipedia_table(wikipedia.ANIMAL_TABLE))
        ranges = wikipedia.read_pitch_ranges(self.wikipedia_table(wikipedia.PITCH_TABLE))
        wiki = [
            *kept_of("Wikipedia's animals", wikipedia.animal_rows(sounds), counts),
            *kept_of("Wikipedia's ranges", wikipedia.pitch_rows(ranges), counts),
        ]
        splits = split_rows([*prompts, *compared], seed=seed, grouped=grouped)
        used = {name for part in splits.values() for row in part for name in row["recordings"]}
        recordings = [row for row in read_rows(self.path("records")) if row["id"] in used]
        made_by = {stage: reports[stage]["settings"] for stage in LLM_STAGES}
        return write_dataset(
            self.out,
            {**splits, "wiki": wiki},
            {
                "metadata": reports["records"]["settings"]["source"],
                "model": made_by["categories"]["model"],
                "sampling": {stage: settings["sampling"] for stage, settings in made_by.items()},
                "templates": {
                    name: digest for settings in made_by.values() for name, digest in settings["texts"].items()
                },
                "stages": counts,
                "licenses": dict(Counter(row["license"] for row in recordings)),
                "sources": dict(Counter(row["source"] for row in recordings)),
                "reviewed": decisions is not None,
                "split": "grouped" if grouped else "plain",
                "seed": seed,
                "wikipedia": {**read_notes(wikipedia.TABLES), **read_notes(self.wikipedia_folder)},
            },
        )

    def main_categories(self) -> StageCount:
        """How many of the categorised records are of use, between those of animals and those to compare."""
        roots = Counter(row["category"].split("/")[0] for row in read_rows(self.path("categories")))
        used = sum(roots[root] for root in (ANIMAL_ROOT, *pairs.PITCH_ROOTS))
        others = f"not of {ANIMAL_ROOT}, {', '.join(pairs.PITCH_ROOTS)}"
        return count_of("main categories", used, {others: roots.total() - used})

    @property
    def wikipedia_folder(self) -> Path:
        """Where `wikipedia.refresh.refresh` is to write the tables for this build alone."""
        return self.out / "stages" / "wikipedia"

    def wikipedia_table(self, name: str) -> Path:
        own = self.wikipedia_folder / name
        return own if own.is_file() else wikipedia.TABLES / name

    def rows_under(self, roots: tuple[str, ...]) -> Iterator[dict]:
        return (row for row in read_rows(self.path("categories")) if row["category"].split("/")[0] in roots)

    def template(self, name: str, placeholders: Iterable[str]) -> str:
        return load_template(self.own(name) or TEMPLATES / name, placeholders)

    def own(self, name: str) -> Path | None:
        """The user's file of this name, if there is one."""
        path = None if self.templates is None else self.templates / name
        return path if path is not None and path.is_file() else None

    def inputs(self, stage: str) -> dict[str, str]:
        """What a stage reads now, by name and sha256."""
        return {READ_BY[stage]: self.report(READ_BY[stage])["sha256"]}

    def report(self, stage: str) -> dict[str, Any]:
        """What stands in the report of a finished stage; raises as `load_report`."""
        return load_report(self.path(stage), f"run the stage {stage!r} first")

    def reports(self) -> dict[str, dict[str, Any]]:
        """The reports of all stages, each made of what the stage before it holds now.

        Raises:
            FileNotFoundError: a stage is missing.
            ValueError: a stage was made of other rows.
        """
        reports = {stage: self.report(stage) for stage in STAGES}
        for stage, read in READ_BY.items():
            if reports[stage]["inputs"] != {read: reports[read]["sha256"]}:
                raise ValueError(
                    f"{self.path(stage)} was not made of the {read} that lie there now: run the stage {stage!r} again, "
                    "and then those after it, or build-benchmark, which runs what has to be."
                )
        return reports


def settings_of(chat: ChatModel, sampling: Sampling, texts: dict[str, str]) -> dict[str, Any]:
    """What the replies depend on: the model, how it samples, and a digest of each text that shapes the prompts."""
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    return {"model": chat.model, "sampling": asdict(sampling), "texts": digests}


def kept_of(stage: str, rows: Iterable[dict], counts: list[StageCount]) -> Iterator[dict]:
    """Passes on the rows that are not refused, and then adds the counts of the stage to `counts`."""
    tally: Counter[str | None] = Counter()
    for row in rows:
        tally[row["refusal"]] += 1
        if row["refusal"] is None:
            yield row
    counts.append(count_of(stage, tally.pop(None, 0), dict(tally)))


def stage_count(report: Mapping[str, Any]) -> StageCount:
    return {
        "stage": report["stage"],
        "read": report["read"],
        "kept": report["kept"],
        "refused": report["refused"],
    }


def count_of(stage: str, kept: int, refused: dict[str, int]) -> StageCount:
    refused = {reason: count for reason, count in sorted(refused.items()) if count}
    return {"stage": stage, "read": kept + sum(refused.values()), "kept": kept, "refused": refused}
