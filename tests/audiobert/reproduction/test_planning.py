"""Which runs the tables need, how far they are, and what they will take."""

import pytest
import torch
from transformers import ASTConfig, ASTModel, BertConfig, BertForMaskedLM

from audiobert.reproduction.costs import AST, AST_TOKENS, SHAPES, adapter_cost, evaluation_cost
from audiobert.reproduction.planning import done_runs, make_plan, plan_runs
from audiobert.reproduction.presets import PAPER, TINY
from audiobert.reproduction.runs import Workshop


def workshop(out, preset=TINY, **kwargs):
    return Workshop(out, preset, out / "data", **kwargs)


def kinds(runs):
    return [(run.kind, run.what) for run in runs]


def test_each_table_has_its_runs():
    assert plan_runs(TINY, [1, 4], 5, True) == []
    assert kinds(plan_runs(TINY, [2], 1, True)) == [("detector", group) for group in ("animal", "pitch", "both")]
    third = plan_runs(TINY, [3], 1, False)
    assert [run.name for run in third[:4]] == ["majority-answer", "linear-text-only", "bert", "detector-both-0"]
    assert len(third) == 4 + 6
    with_text = plan_runs(TINY, [3], 1, True)
    assert [run.name for run in with_text if run not in third] == ["preservation-0"]


@pytest.mark.parametrize("preset", [TINY, PAPER])
def test_names_are_unique_and_what_a_run_needs_comes_before_it(preset):
    runs = plan_runs(preset, [1, 2, 3, 4], 3, True)
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    for number, run in enumerate(runs):
        assert set(run.needs) <= set(names[:number])
    by_name = {run.name: run for run in runs}
    assert all(by_name[need].bert == run.bert and by_name[need].seed == run.seed for run in runs for need in run.needs)
    assert [run for run in runs if run.seed in (None, 0, 1)] == plan_runs(preset, [1, 2, 3, 4], 2, True)


def test_other_berts_have_audiobert_and_the_same_without_audio():
    runs = [run for run in plan_runs(PAPER, [2, 3], 1, True) if run.seed == 0 and run.bert == PAPER.berts[0]]
    assert kinds(runs) == [
        ("detector", "both"),
        ("audiobert", "AudioBERT (bert-base-uncased)"),
        ("audiobert", "no audio (bert-base-uncased)"),
    ]


def test_states_and_what_is_left(tmp_path):
    (tmp_path / "runs" / "bert").mkdir(parents=True)
    (tmp_path / "runs" / "detector-both-0.unfinished").mkdir()
    plan = make_plan(workshop(tmp_path), [3], 1)
    states = {planned.run.name: planned.state for planned in plan.runs}
    assert (states["bert"], states["detector-both-0"], states["audiobert-0"]) == ("done", "cut off", "to do")
    assert "bert" not in {run.name for run in plan.remaining}
    hours = sum(planned.cost.hours for planned in plan.runs if planned.state != "done")
    assert plan.remaining_cost.hours == pytest.approx(hours)
    assert str(plan).startswith("1 of 10 runs are done; the other 9 take ")
    assert "two cores (an estimate)" in str(plan)
    assert plan.to_dict()["runs"][2]["state"] == "done"
    assert "| detector-both-0 | cut off |" in plan.to_markdown()


def test_of_trainings_that_are_cut_short_no_cost_is_known(tmp_path):
    plan = make_plan(workshop(tmp_path, max_steps=2), [3], 1)
    assert all(planned.cost is None for planned in plan.runs)
    assert str(plan).endswith("a time that is not known beforehand.")


def test_done_runs_are_found_whatever_was_asked_for(tmp_path):
    for name in ("detector-pitch-0", "majority-answer", "audiobert-2", "detector-both-1.unfinished"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert [run.name for run in done_runs(workshop(tmp_path), 1)] == ["majority-answer", "detector-pitch-0"]
    assert "audiobert-2" in [run.name for run in done_runs(workshop(tmp_path), 3)]


@pytest.mark.parametrize(
    ("tables", "seeds", "named"), [([5], 1, "1, 2, 3, 4, got 5"), ([], 1, "got"), ([1], 0, "got 0")]
)
def test_what_cannot_be_planned_is_named(tables, seeds, named, tmp_path):
    with pytest.raises(ValueError, match=named):
        make_plan(workshop(tmp_path), tables, seeds)


def test_the_papers_preset_is_estimated_with_a_gpus_memory(tmp_path):
    plan = make_plan(workshop(tmp_path, PAPER), [2, 3], 1)
    assert all(planned.cost is not None for planned in plan.runs)
    assert "GiB of its memory" in str(plan)


def test_the_sizes_are_those_of_the_models():
    with torch.device("meta"):
        assert sum(p.numel() for p in ASTModel(ASTConfig()).parameters()) == AST.parameters
        bert = BertForMaskedLM(BertConfig())
    assert sum(p.numel() for p in bert.parameters()) == SHAPES["google-bert/bert-base-uncased"].parameters


def test_what_ast_keeps_for_the_backward_pass_is_what_is_counted():
    model = ASTModel(ASTConfig(num_hidden_layers=1)).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.zeros(1, 1024, 128)).last_hidden_state.sum()
    found = sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in weights)
    counted = AST.kept_bytes(AST_TOKENS) / AST.layers
    assert found == pytest.approx(counted, rel=0.1)


def test_the_trained_audio_encoder_is_what_costs():
    bert = SHAPES["google-bert/bert-large-uncased"]
    heard, silent = (adapter_cost(bert, PAPER, with_audio) for with_audio in (True, False))
    # 416,620 recordings of 0.8 TFLOP at 11.7 TFLOP/s, and 14 ms of reading for each.
    assert heard.hours - silent.hours == pytest.approx(416_620 * (0.8e12 / 11.7e12 + 0.014) / 3600, rel=0.1)
    assert heard.gpu_gib > 64 * AST.kept_bytes(AST_TOKENS) / 2**30
    assert evaluation_cost(SHAPES["google/gemma-2-2b"], "causal").hours > evaluation_cost(bert, "masked").hours
