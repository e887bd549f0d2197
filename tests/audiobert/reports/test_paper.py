import pytest

from audiobert.reports.paper import paper_tables, published_models


def test_all_four_tables_are_there_and_say_what_is_known_of_them():
    tables = paper_tables()
    assert list(tables) == ["I", "II", "III", "IV"]
    assert all(table.number == number and table.title for number, table in tables.items())
    assert [number for number, table in tables.items() if table.figures] == ["III"]
    # What nobody has is not made up, and that is said.
    for number in ("II", "IV"):
        assert tables[number].page is None and "not at hand" in tables[number].note


def test_every_figure_says_where_it_was_read_and_stands_once():
    table = paper_tables()["III"]
    assert table.page == 4
    places = [(figure.model, figure.split, figure.task) for figure in table.figures]
    assert len(set(places)) == len(places) == 19
    assert all(0 < figure.value < 100 and "README" in figure.source for figure in table.figures)


def test_the_papers_audiobert():
    table = paper_tables()["III"]
    assert [table.value("AudioBERT-large", split, "animal") for split in ("dev", "test", "wiki")] == [
        37.30,
        36.69,
        15.03,
    ]
    assert [table.value("AudioBERT-large", split, "pitch") for split in ("dev", "test", "wiki")] == [
        75.11,
        76.31,
        56.27,
    ]
    assert table.value("AudioBERT-large", "dev", "combined") is None
    assert table.value("BERT-base", "test", "animal") is None


@pytest.mark.parametrize("model", paper_tables()["III"].models)
def test_combined_pools_the_rows_of_both_tasks(model):
    animal, pitch, combined = (
        paper_tables()["III"].value(model, "test", task) for task in ("animal", "pitch", "combined")
    )
    # The two that are pooled are themselves rounded to 0.01.
    assert (1211 * animal + 2387 * pitch) / 3598 == pytest.approx(combined, abs=0.011)


def test_the_published_state_of_the_art_says_what_it_is_and_where_it_was_read():
    (model,) = published_models()
    assert model.name == "Imagine to Hear" and "all of BERT-base is fine-tuned" in model.how
    assert "arXiv 2503.16853" in model.source
    columns = [f"{task} {split}" for task in ("animal", "pitch") for split in ("dev", "test", "wiki")]
    assert [model.accuracies[column] for column in columns] == [39.36, 41.55, 19.09, 79.82, 78.96, 76.74]
