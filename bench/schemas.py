"""Replies that are held to a JSON schema: do they obey, and what does it cost?

Random schemas of the kinds of JSONSchemaBench (``tests/support/schema_kinds.py``), each with one
reply of the default model, half of them greedy.

``obeyed_fraction``: of the replies that ended by themselves, those that are JSON and obey, as the
library ``jsonschema`` sees it. ``ended_fraction``: of the replies, those that ended within 300
tokens. ``refused_fraction``: of the schemas, those that were refused, which tells what they use;
``crashes``: engines that ended. ``load_ms_p95``: to read a schema, ``vocabulary_ms``: once for a
model. ``speed_ratio``: tokens a second of a reply with a schema against one without; the median of
rounds in turn, of the model that does worst.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from random import Random

import frame

from ondevice import llama
from ondevice.engine import Engine
from ondevice.errors import EngineDied, UsageError
from ondevice.json_schema import compile_schema
from ondevice.messages import Chunk, Finished, Generate, Load, Sampling, Turn

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
import schema_kinds

MODELS = ("smollm2-135m-instruct-q4_1.gguf", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
LONG = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
MOST_TOKENS, TIMED_TOKENS = 300, 96


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    n_schemas, rounds = (22, 3) if quick else (200, 9)
    random = Random(7)
    schemas = [
        schema_kinds.KINDS[index % len(schema_kinds.KINDS)](random) for index in range(n_schemas)
    ]
    figures: frame.Figures = {}
    runs: frame.Runs = []
    paths = frame.models(*MODELS)
    if not paths:
        return figures, runs
    for path in paths:
        with Engine() as engine:
            engine.load(Load(path=str(path), n_ctx=8192))
            if path == paths[0]:
                runs += replies(engine, schemas)
            ratio = speed_ratio(engine, rounds)
        frame.say(f"{path.stem}: a reply with a schema is {ratio:.3f} times as fast")
        figures["speed_ratio"] = min(ratio, figures.get("speed_ratio", ratio))
    figures |= loading(paths[-1], schemas)
    ended = [run for run in runs if run["outcome"] in ("obeyed", "wrong")]
    answered = [run for run in runs if run["outcome"] != "refused"]
    figures["obeyed_fraction"] = frame.mean(run["outcome"] == "obeyed" for run in ended)
    figures["ended_fraction"] = len(ended) / len(answered)
    figures["refused_fraction"] = frame.mean(run["outcome"] == "refused" for run in runs)
    figures["crashes"] = sum(run["outcome"] == "crashed" for run in runs)
    return figures, runs


def replies(engine: Engine, schemas: list[schema_kinds.Schema]) -> frame.Runs:
    runs: frame.Runs = []
    for number, schema in enumerate(schemas):
        if number % 20 == 0:
            frame.say(f"schema {number} of {len(schemas)}")
        request = Generate(
            turns=(Turn("user", f"Make up some data. Answer in JSON. {json.dumps(schema)}"),),
            json_schema=json.dumps(schema),
            max_tokens=MOST_TOKENS,
            sampling=Sampling(temperature=0 if number % 2 else 1, seed=number),
        )
        answer, said = "", ""
        try:
            for event in engine.generate(request):
                if isinstance(event, Chunk):
                    answer += event.text
                elif isinstance(event, Finished):
                    said = schema_kinds.fault(schema, answer) if event.reason == "stop" else ""
                    outcome = "wrong" if said else "obeyed" if event.reason == "stop" else "unended"
        except UsageError as error:
            outcome, said = "refused", str(error)
        except EngineDied as error:
            outcome, said = "crashed", str(error)
        runs.append({"schema": schema, "outcome": outcome, "said": said, "answer": answer})
    return runs


def speed_ratio(engine: Engine, rounds: int) -> float:
    def speed(number: int, schema: str | None) -> float:
        request = Generate(
            turns=(Turn("user", f"Tell a long story about the number {number} and the sea."),),
            json_schema=schema,
            max_tokens=TIMED_TOKENS,
            sampling=Sampling(seed=number),
        )
        *_, finished = engine.generate(request)
        assert isinstance(finished, Finished)
        return finished.statistics.generated_per_second

    schema = json.dumps(LONG)
    pairs = [(speed(number, schema), speed(number, None)) for number in range(rounds + 1)]
    return frame.median(ours / theirs for ours, theirs in pairs[1:])


def loading(path: Path, schemas: list[schema_kinds.Schema]) -> frame.Figures:
    """With the larger vocabulary."""
    llama.start(io.StringIO())
    model = llama.Model(path)
    started = time.perf_counter()
    vocabulary = llama.SchemaVocabulary(model)
    made = time.perf_counter() - started
    times = []
    for schema in schemas:
        started = time.perf_counter()
        try:
            vocabulary.constraint(compile_schema(json.dumps(schema))).allowed()
        except UsageError:
            continue
        times.append(time.perf_counter() - started)
    model.close()
    return {
        "load_ms_p95": sorted(times)[int(len(times) * 0.95)] * 1e3,
        "vocabulary_ms": made * 1e3,
    }


if __name__ == "__main__":
    frame.run(__doc__, measure)
