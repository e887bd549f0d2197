"""What a stage leaves behind: rows that add up, that a stopped run does not lose, and that shards give alike."""

import errno
import json

import pytest

from audiobert.benchmark import stages
from audiobert.benchmark.stages import (
    NO_REPLY,
    Refusal,
    Shard,
    load_report,
    merge_stage,
    read_all_rows,
    read_rows,
    run_stage,
    write_rows,
)

NUMBERS = list(range(23))


def judged(numbers):
    """Keeps odd numbers; the reason of the others depends on them."""
    for number in numbers:
        refusal = None if number % 2 else "divisible by four" if number % 4 == 0 else "even"
        yield {"number": number, "refusal": refusal}


def run(path, work=judged, numbers=NUMBERS, settings=None, inputs=None, shard=None):
    return run_stage(
        path, numbers, work, settings=settings or {"model": "a"}, inputs=inputs or {"in": "1"}, shard=shard
    )


def test_the_counts_add_up_and_later_stages_see_only_what_was_kept(tmp_path):
    report = run(tmp_path / "numbers.jsonl")
    assert report.read == len(NUMBERS) == report.kept + sum(report.refused.values())
    assert report.refused == {"divisible by four": 6, "even": 6}
    assert [row["number"] for row in read_rows(tmp_path / "numbers.jsonl")] == NUMBERS[1::2]
    assert [row["number"] for row in read_all_rows(tmp_path / "numbers.jsonl")] == NUMBERS


def test_a_finished_stage_is_not_run_again(tmp_path):
    settings = {"stop": ("\n",)}
    first = run(tmp_path / "numbers.jsonl", settings=settings)
    assert run(tmp_path / "numbers.jsonl", lambda rows: pytest.fail("it ran again"), settings=settings) == first


def test_a_stopped_run_goes_on_after_its_last_whole_line(tmp_path):
    path = tmp_path / "numbers.jsonl"
    seen = []

    def stopped(numbers):
        for row in judged(numbers):
            if row["number"] == 9:
                raise KeyboardInterrupt
            yield row

    with pytest.raises(KeyboardInterrupt):
        run(path, work=stopped)
    assert not path.exists()
    partial = tmp_path / "numbers.jsonl.partial"
    # The machine went down in the middle of a line.
    partial.write_bytes(partial.read_bytes() + b'{"number": 9, "refu')

    def watched(numbers):
        for row in judged(numbers):
            seen.append(row["number"])
            yield row

    report = run(path, work=watched)
    assert seen == NUMBERS[9:]
    whole = tmp_path / "whole" / "numbers.jsonl"
    assert report == run(whole)
    assert path.read_bytes() == whole.read_bytes()
    assert path.with_suffix(".json").read_bytes() == whole.with_suffix(".json").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["numbers.json", "numbers.jsonl"]


def test_a_full_disk_is_named_and_loses_nothing(tmp_path):
    path = tmp_path / "numbers.jsonl"

    def full(numbers):
        for row in judged(numbers):
            if row["number"] == 12:
                raise OSError(errno.ENOSPC, "No space left on device")
            yield row

    with pytest.raises(OSError, match="No space left on device; what was done is kept.*numbers.jsonl.partial"):
        run(path, work=full)
    seen = []
    run(path, work=lambda rows: (seen.append(row["number"]) or row for row in judged(rows)))
    assert seen == NUMBERS[12:]


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_merged_shards_are_the_bytes_of_the_single_run(tmp_path, count):
    path, single = tmp_path / "numbers.jsonl", tmp_path / "single" / "numbers.jsonl"
    for number in range(count, 0, -1):
        run(path, shard=Shard(number, count))
    report = merge_stage(path, count)
    assert report == run(single)
    assert path.read_bytes() == single.read_bytes()
    assert path.with_suffix(".json").read_bytes() == single.with_suffix(".json").read_bytes()


def test_a_missing_shard_and_one_of_another_model_are_named(tmp_path):
    path = tmp_path / "numbers.jsonl"
    run(path, shard=Shard(1, 2))
    with pytest.raises(FileNotFoundError, match="numbers.shard-2-of-2.jsonl is missing or unfinished"):
        merge_stage(path, 2)
    run(path, shard=Shard(2, 2), settings={"model": "b"})
    with pytest.raises(ValueError, match="numbers.shard-2-of-2.jsonl was made with other settings"):
        merge_stage(path, 2)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none(text):
    with pytest.raises(ValueError, match="shard is"):
        Shard.parse(text)


def test_other_settings_never_overwrite_what_was_made(tmp_path):
    path = tmp_path / "numbers.jsonl"
    run(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="numbers.jsonl was made with model 'a', not 'b'"):
        run(path, settings={"model": "b"})
    assert path.read_bytes() == before


def test_changed_inputs_make_a_stage_anew(tmp_path):
    path = tmp_path / "numbers.jsonl"
    run(path)
    report = run(path, numbers=NUMBERS[:4], inputs={"in": "2"})
    assert report.read == 4
    assert [row["number"] for row in read_all_rows(path)] == NUMBERS[:4]


def test_rows_without_a_reply_are_asked_again(tmp_path):
    path = tmp_path / "numbers.jsonl"
    report = run(path, work=lambda rows: ({"number": row, "refusal": NO_REPLY if row == 3 else None} for row in rows))
    assert report.refused == {NO_REPLY: 1}
    assert run(path, work=lambda rows: ({"number": row, "refusal": None} for row in rows)).refused == {}


def test_rows_that_were_replaced_without_their_report_are_no_finished_stage(tmp_path, monkeypatch):
    """A crash in the last moment: either of the two is there alone, and neither passes for the other's."""
    path = tmp_path / "numbers.jsonl"
    run(path)
    replace = stages.os.replace

    def crash(source, target):
        if str(target) == str(path):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(stages.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        run(path, numbers=NUMBERS[:4], inputs={"in": "2"})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="numbers.jsonl holds other rows than numbers.json counts: do it again"):
        load_report(path, "do it again")
    # All that is left to do is the replacement.
    report = run(path, lambda rows: pytest.fail("a row is left") if list(rows) else [], NUMBERS[:4], inputs={"in": "2"})
    assert report.read == 4 == load_report(path, "")["read"]
    assert [row["number"] for row in read_all_rows(path)] == NUMBERS[:4]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["numbers.json", "numbers.jsonl"]

    # As before there were digests, or where somebody edited the rows.
    path.write_text(path.read_text().replace("even", "odd"))
    report = run(path, numbers=NUMBERS[:4], inputs={"in": "2"})
    assert "odd" not in path.read_text()


def test_a_stopped_run_with_other_settings_is_kept_if_it_has_rows_and_until_it_is_removed(tmp_path):
    path = tmp_path / "numbers.jsonl"

    def stopped(numbers, rows):
        yield from judged(numbers[:rows])
        raise KeyboardInterrupt

    for settings, rows in (({"model": "mistyped"}, 0), ({"model": "a"}, 3)):
        with pytest.raises(KeyboardInterrupt):
            run(path, work=lambda _, rows=rows: stopped(NUMBERS, rows), settings=settings)
    with pytest.raises(ValueError, match="numbers.jsonl.partial was made with model 'a', not 'b'.*remove the file"):
        run(path, settings={"model": "b"})
    (tmp_path / "numbers.jsonl.partial").unlink()
    assert run(path, settings={"model": "b"}).read == len(NUMBERS)


def test_rows_that_are_written_at_once_are_neither_made_twice_nor_with_other_settings(tmp_path):
    path = tmp_path / "rows.jsonl"

    def write(rows, seed=0):
        return write_rows(path, rows, settings={"seed": seed}, inputs={"in": "1"})

    first = write(judged(NUMBERS))
    assert write(pytest.fail(str(row)) for row in NUMBERS) == first
    with pytest.raises(ValueError, match="rows.jsonl was made with seed 0, not 1"):
        write(judged(NUMBERS), seed=1)


def test_a_text_that_utf8_cannot_hold_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"reply": "half a pair: \ud83d", "refusal": None}], settings={}, inputs={})
    assert json.loads(path.read_text())["reply"] == "half a pair: \ud83d"
    assert next(read_rows(path))["reply"] == "half a pair: \ud83d"


def test_a_stage_that_was_not_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the stage 'categories' first"):
        next(read_rows(tmp_path / "categories.jsonl"))


def test_a_refusal_says_why():
    refusal = Refusal("too deep", "animal/dog/a/b/c/d")
    assert (refusal.reason, refusal.detail, str(refusal)) == (
        "too deep",
        "animal/dog/a/b/c/d",
        "too deep: animal/dog/a/b/c/d",
    )
