"""One pymilvus client as a worker: a JSON request a line in, a JSON answer a line out. Started as: pymilvus_worker.py URI

Requests: {"do": "create", "collection", "dim", "index": bool, "metric"}, {"do": "insert", "collection", "rows", "dim", "batch", "vectors": FILE?},
{"do": "load", "collection"}, {"do": "scalars", "collection", "rows"}, {"do": "query", "collection", "filters": [TEXT], "fields", "rows": expected, "seconds"},
{"do": "search", "collection", "vectors", "queries": FILE, "dim", "limit", "ef", "seconds"}, {"do": "drop", "collection"}.
Files are raw little-endian float32. Times are of the calls alone, in seconds; rows are made before the clock starts.
"""

import json
import resource
import sys
import time

import numpy as np
from pymilvus import DataType, MilvusClient

client = MilvusClient(uri=sys.argv[1])


def create(request):
    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=request["dim"])
    indexes = client.prepare_index_params()
    if request["index"]:
        indexes.add_index("vector", index_type="HNSW", metric_type=request["metric"], M=16, efConstruction=128)
    client.create_collection(request["collection"], schema=schema, index_params=indexes if request["index"] else None)
    return {}


def vectors_of(request, name="vectors"):
    if name in request:
        return np.fromfile(request[name], dtype="<f4").reshape(-1, request["dim"])
    return np.random.default_rng(1).random((request["rows"], request["dim"]), dtype=np.float32)


def insert(request):
    vectors = vectors_of(request)
    batches = [
        [{"id": row, "vector": vectors[row]} for row in range(first, min(first + request["batch"], len(vectors)))]
        for first in range(0, len(vectors), request["batch"])
    ]
    cpu, start = time.process_time(), time.perf_counter()
    count = sum(client.insert(request["collection"], batch)["insert_count"] for batch in batches)
    seconds = time.perf_counter() - start
    if count != len(vectors):
        raise RuntimeError(f"{count} rows acknowledged, {len(vectors)} sent")
    return {"rows": count, "seconds": seconds, "clientCpu": time.process_time() - cpu}


def load(request):
    client.flush(request["collection"])
    while True:
        state = client.describe_index(request["collection"], "vector")
        if int(state.get("pending_index_rows") or 0) == 0 and state.get("state", "Finished") == "Finished":
            break
        time.sleep(0.2)
    client.load_collection(request["collection"])
    return {}


def search(request):
    queries = vectors_of(request, "queries")

    def one(i):
        return client.search(
            request["collection"],
            [queries[i % len(queries)]],
            limit=request["limit"],
            output_fields=["id"],
            search_params={"params": {"ef": request["ef"]}},
        )[0]

    result = {}
    if "vectors" in request:
        vectors = vectors_of(request)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        sample = min(100, len(queries))
        hits = 0
        for i in range(sample):
            scores = unit @ (queries[i] / np.linalg.norm(queries[i]))
            least = np.sort(scores)[-request["limit"]] - 1e-5
            hits += sum(1 for hit in one(i) if scores[hit["id"]] >= least)
        result["recall"] = hits / (sample * request["limit"])
    cpu, start = time.process_time(), time.perf_counter()
    count = 0
    while time.perf_counter() - start < request["seconds"]:
        one(count)
        count += 1
    seconds = time.perf_counter() - start
    return {**result, "searches": count, "seconds": seconds, "clientCpu": time.process_time() - cpu}


def scalars(request):
    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("n", DataType.INT64)
    schema.add_field("price", DataType.DOUBLE)
    schema.add_field("name", DataType.VARCHAR, max_length=64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=8)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="HNSW", metric_type="COSINE", M=16, efConstruction=128)
    client.create_collection(request["collection"], schema=schema, index_params=indexes)
    vectors = np.random.default_rng(2).random((request["rows"], 8), dtype=np.float32)
    rows = [{"id": i, "n": i * 7919 % 1000, "price": i / 8, "name": f"name of row {i}", "vector": vectors[i]} for i in range(request["rows"])]
    for first in range(0, len(rows), 2000):
        client.insert(request["collection"], rows[first : first + 2000])
    return load(request)


def query(request):
    filters, fields = request["filters"], request["fields"]
    count, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < request["seconds"]:
        found = client.query(request["collection"], filter=filters[count % len(filters)], output_fields=fields)
        if len(found) != request["rows"]:
            raise RuntimeError(f"{len(found)} rows of {request['rows']} by {filters[count % len(filters)][:100]}")
        count += 1
    return {"searches": count, "seconds": time.perf_counter() - start, "clientCpu": time.process_time() - cpu}


def drop(request):
    client.drop_collection(request["collection"])
    return {}


for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = globals()[request["do"]](request)
    except Exception as error:  # the caller prints it and ends
        answer = {"error": f"{type(error).__name__}: {error}"}
    answer["peakMb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(answer), flush=True)
