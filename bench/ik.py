"""Reads prompts with ik_llama.cpp, in a process of its own: its symbols are those of llama.cpp.

``python ik.py MODEL THREADS repacked|plain`` answers each line of standard input, the numbers of
tokens in JSON, with the seconds that it took to read these. ``products.py`` starts it.
"""

from __future__ import annotations

import json
import sys
import time

from ik_llama_cpp import _ctypes_api as native  # type: ignore[import-not-found]
from ik_llama_cpp._internals import make_batch  # type: ignore[import-not-found]

N_CTX = 1024


def main(path: str, threads: str, form: str) -> None:
    native.llama_backend_init()
    of_model = native.llama_model_default_params()
    of_model.repack_tensors, of_model.use_mmap = form == "repacked", form != "repacked"
    model = native.llama_model_load_from_file(path.encode(), of_model)
    params = native.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = N_CTX, 512, 512
    params.n_threads = params.n_threads_batch = int(threads)
    context = native.llama_init_from_model(model, params)
    for line in sys.stdin:
        batch = make_batch(json.loads(line))
        native.llama_kv_cache_clear(context)
        started = time.perf_counter()
        if native.llama_decode(context, batch):
            sys.exit("ik_llama.cpp cannot read the prompt.")
        native.llama_get_logits_ith(context, -1)
        print(time.perf_counter() - started, flush=True)
        native.llama_batch_free(batch)


main(*sys.argv[1:])
