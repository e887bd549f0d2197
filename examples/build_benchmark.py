"""A benchmark of one's own recordings: python build_benchmark.py RECORDINGS OUT http://localhost:8000/v1 MODEL"""

import sys

from audiobert.benchmark.pipeline import BenchmarkBuild
from audiobert.benchmark.pitch import PitchSettings
from audiobert.benchmark.sources.opening import open_source
from audiobert.llm.client import open_chat

recordings, out, url, model = sys.argv[1:]
source, build = open_source(recordings), BenchmarkBuild(out)
with build.claimed(), open_chat(url, model, None, build.replies) as chat:
    for report in (
        build.records(source),
        build.categories(chat),
        build.animals(chat),
        build.pitches(source, PitchSettings(method="pyin")),
        build.pairs(seed=0),
        build.comparisons(chat),
    ):
        print(f"{report.stage}: {report.kept} of {report.read}", report.refused)
print(build.publish(seed=0).statistics.to_markdown())
