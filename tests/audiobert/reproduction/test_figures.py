import numpy as np
from matplotlib.image import imread

from audiobert.evaluation.predictions import RowPrediction
from audiobert.reproduction.figures import write_figures
from audiobert.reproduction.findings import Answers, DetectorScores, Results, find
from audiobert.reproduction.presets import AUDIOBERT, NO_AUDIO


def answers(model: str, seed: int, right: int) -> Answers:
    rows = [
        RowPrediction("dev", "pitch", row, f"{row} is [MASK].", "higher", (), "higher", row < right)
        for row in range(20)
    ]
    return Answers(model, seed, rows)


def results(right: int = 12) -> Results:
    given = [answers(AUDIOBERT, seed, right + seed) for seed in range(2)] + [answers(NO_AUDIO, 0, 10)]
    return Results({}, answers=given, detectors=[DetectorScores("both", 0, "dev", "pitch", 9, 0.9, 0.5)])


def test_what_there_is_is_drawn_as_png_and_svg(tmp_path):
    drawn = write_figures(find(results()), tmp_path)
    assert [path.name for path in drawn] == ["accuracy.png", "differences.png", "detectors.png"]
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["accuracy.svg", "detectors.svg", "differences.svg"]
    assert len(list(tmp_path.iterdir())) == 6
    for path in drawn:
        pixels = imread(path)[..., :3]
        assert pixels.shape[1] == 1300 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 3
    assert write_figures(find(Results({})), tmp_path / "none") == []


def test_the_same_results_give_the_same_bytes_and_others_do_not(tmp_path):
    for name, right in (("one", 12), ("two", 12), ("other", 15)):
        write_figures(find(results(right)), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        assert b"<dc:date>" not in path.read_bytes()
        if path.stem != "detectors":
            assert path.read_bytes() != (tmp_path / "other" / path.name).read_bytes()
