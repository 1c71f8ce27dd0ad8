"""The packages example in small, with the unmodified pymilvus: fill, search, snapshot, change, restore beside it, compare.

    make run
    pip install pymilvus==3.0.2
    python examples/python/packages.py            CAIRN_ADDRESS=127.0.0.1:19530 says where
"""

import os
import time

import numpy as np
from pymilvus import DataType, MilvusClient

ROWS, DIM = 2000, 64
SECTIONS = ["libs", "python", "doc", "games"]
client = MilvusClient(uri=f"http://{os.environ.get('CAIRN_ADDRESS', '127.0.0.1:19530')}")
collection = f"packages_py_{os.getpid()}"
restored = f"{collection}_restored"
snapshot = "before_the_storm"

rng = np.random.default_rng(7)
vectors = rng.standard_normal((ROWS, DIM), dtype=np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
rows = {
    f"package-{i}": {
        "name": f"package-{i}",
        "section": SECTIONS[i % len(SECTIONS)],
        "installed_kb": int(rng.integers(5000)),
        "homepage": None if i % 10 == 0 else f"https://example.org/{i}",
        "tags": {"role": ["program"]} if i % 5 == 0 else {},
        "embedding": vectors[i],
        "architecture": "all",  # not in the schema: it goes into the dynamic field
    }
    for i in range(ROWS)
}


def check_rows(name, model):
    """Every row and every field is as in the model."""
    fields = ["section", "installed_kb", "homepage", "tags", "embedding", "architecture"]
    iterator = client.query_iterator(name, batch_size=500, output_fields=fields, consistency_level="Strong")
    seen = set()
    while batch := iterator.next():
        for row in batch:
            want = model[row["name"]]
            assert row["name"] not in seen, f"{row['name']} came twice"
            seen.add(row["name"])
            assert np.array_equal(np.asarray(row["embedding"], dtype=np.float32), want["embedding"]), row["name"]
            for field in fields[:4] + fields[5:]:
                assert row[field] == want[field], f"{row['name']}: {field} is {row[field]}, not {want[field]}"
    iterator.close()
    assert len(seen) == len(model), f"{name} has {len(seen)} rows, not {len(model)}"


def check_search(name, model):
    """Recall at 10 against exact arithmetic, over all rows and over those of one section."""
    names = list(model)
    matrix = np.stack([model[key]["embedding"] for key in names])
    for text, keep in {"": np.ones(len(names), bool), 'section == "libs"': np.array([model[key]["section"] == "libs" for key in names])}.items():
        hits = 0
        queries = rng.standard_normal((20, DIM), dtype=np.float32)
        found = client.search(name, list(queries), filter=text, limit=10, search_params={"params": {"ef": 128}}, consistency_level="Strong")
        for query, result in zip(queries, found):
            scores = np.where(keep, matrix @ query / np.linalg.norm(query), -2)
            least = np.sort(scores)[-10] - 1e-5
            hits += sum(1 for hit in result if hit["distance"] >= least)
        print(f"  {text or 'all rows':20} recall@10 {hits / 200:.3f}")
        assert hits >= 190


schema = MilvusClient.create_schema(enable_dynamic_field=True)
schema.add_field("name", DataType.VARCHAR, max_length=64, is_primary=True)
schema.add_field("section", DataType.VARCHAR, max_length=64)
schema.add_field("installed_kb", DataType.INT32)
schema.add_field("homepage", DataType.VARCHAR, max_length=512, nullable=True)
schema.add_field("tags", DataType.JSON)
schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIM)
indexes = client.prepare_index_params()
indexes.add_index("embedding", index_type="HNSW", metric_type="COSINE", M=16, efConstruction=200)
client.create_collection(collection, schema=schema, index_params=indexes)  # with an index it is loaded, too
client.insert(collection, list(rows.values()))
client.flush(collection)
print(f"{collection}: {ROWS} rows inserted")
check_search(collection, rows)
check_rows(collection, rows)

client.create_snapshot(collection_name=collection, snapshot_name=snapshot, description="the example")
model = {key: row for key, row in rows.items() if row["section"] != "doc"}
model["package-0"] = {**rows["package-0"], "installed_kb": -1}
client.delete(collection, filter='section == "doc"')
client.upsert(collection, [model["package-0"]])
print("snapshot taken; rows deleted and changed since")

job = client.restore_snapshot(snapshot_name=snapshot, source_collection_name=collection, target_collection_name=restored)
while (state := client.get_restore_snapshot_state(job_id=job)).state != "RestoreSnapshotCompleted":
    assert state.state != "RestoreSnapshotFailed", state.reason
    time.sleep(0.05)
client.load_collection(restored)
check_rows(restored, rows)
check_search(restored, rows)
check_rows(collection, model)
print(f"{restored}: as it was at the snapshot; {collection}: as it is now")

client.drop_snapshot(snapshot_name=snapshot, collection_name=collection)
client.drop_collection(collection)
client.drop_collection(restored)
print("all is as it must be")
