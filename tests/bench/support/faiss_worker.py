"""Indexes as faiss builds them, in this process: a JSON request a line in, a JSON answer a line out.

Request: {"factory": TEXT, "binary": bool, "dim", "vectors": FILE, "queries": FILE, "nprobe", "ef", "refine", "threads", "seconds"}; files are raw little-endian
float32, or bytes of bits. Answer: {"build": s, "mb", "ids": [[10 of each of 100 queries]], "qps": queries a second by hundreds}.
"""

import json
import sys
import time

import faiss
import numpy as np


def measure(request):
    faiss.omp_set_num_threads(request["threads"])
    kind, width = (np.uint8, request["dim"] // 8) if request["binary"] else (np.float32, request["dim"])
    vectors = np.fromfile(request["vectors"], dtype=kind).reshape(-1, width)
    queries = np.fromfile(request["queries"], dtype=kind).reshape(-1, width)
    make = faiss.index_binary_factory if request["binary"] else faiss.index_factory
    start = time.perf_counter()
    index = make(request["dim"], request["factory"])
    if not index.is_trained:
        index.train(vectors)
    index.add(vectors)
    build = time.perf_counter() - start
    size = len(faiss.serialize_index_binary(index) if request["binary"] else faiss.serialize_index(index))
    base = index
    if "refine" in request:
        index.k_factor = request["refine"] / 10
        base = faiss.downcast_index(index.base_index)
    if hasattr(base, "nprobe"):
        base.nprobe = request["nprobe"]
    if hasattr(base, "hnsw"):
        base.hnsw.efSearch = request["ef"]
    hundred = queries[:100]
    ids = index.search(hundred, 10)[1].tolist()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < request["seconds"]:
        index.search(hundred, 10)
        count += 100
    return {"build": build, "mb": size / 2**20, "ids": ids, "qps": count / (time.perf_counter() - start)}


for line in sys.stdin:
    try:
        answer = measure(json.loads(line))
    except Exception as error:  # the caller prints it
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
