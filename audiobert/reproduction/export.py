"""All figures of a reproduction for other programs: `results.json`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ..benchmark.dataset.statistics import PAPER_TABLE_I, Statistics
from ..files import whole_file
from ..reports.paper import paper_tables, published_models
from .findings import Findings, Results
from .verdict import verdict


def write_json(results: Results, findings: Findings, path: Path) -> None:
    """Everything, not rounded: shares from 0 to 1 (the paper's own figures in percent, as printed); null if not run."""
    everything = {
        "configuration": results.configuration,
        "verdict": verdict(findings),
        "sound_swap": findings.swap and findings.swap.to_dict(),
        "table_1": results.statistics and results.statistics.to_dict(),
        "table_1_paper": Statistics(PAPER_TABLE_I).to_dict(),
        "table_2": {
            "detectors": [asdict(found) for found in findings.detectors],
            "false_alarms": [asdict(found) for found in findings.alarms],
            "detectors_by_seed": [asdict(scores) for scores in results.detectors],
            "false_alarms_by_seed": [asdict(alarms) for alarms in results.alarms],
        },
        "table_3": {
            "seeds": findings.seeds,
            "accuracies": findings.accuracies and findings.accuracies.to_dict(),
            "accuracies_by_seed": [asdict(accuracy) for answers in results.answers for accuracy in answers.accuracies],
            "audio_against": {name: comparison.to_dict() for name, comparison in findings.comparisons.items()},
            "other_sizes_against_no_audio": {name: found.to_dict() for name, found in findings.other_sizes.items()},
            "strata": findings.strata and findings.strata.to_dict(),
        },
        "preservation": {
            "pseudo_perplexity": {mode: asdict(figure) for mode, figure in findings.perplexities.items()},
            "by_seed": {str(seed): measured.to_dict() for seed, measured in results.preservation.items()},
        },
        "table_4": results.human and results.human.to_dict(),
        "published": [asdict(model) for model in published_models()],
        "paper": {number: asdict(table) for number, table in paper_tables().items()},
    }
    with whole_file(path) as file:
        file.write(json.dumps(everything, indent=2) + "\n")
