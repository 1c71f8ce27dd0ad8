"""Checks through pymilvus, one line of JSON each: {"check": name, "ok": bool, "detail": text}. Usage: pymilvus_checks.py ADDRESS"""

import json
import math
import random
import sys
import time
import traceback

from pymilvus import AnnSearchRequest, DataType, Function, FunctionType, MilvusClient, RRFRanker

DIM = 8
ROWS = 300
NAME = "books"
rng = random.Random(7)
client = MilvusClient(uri=f"http://{sys.argv[1]}")


def vector():
    return [rng.uniform(-1, 1) for _ in range(DIM)]


rows = [
    {"id": i, "title": f"book {i}", "pages": i % 50, "dense": vector(), "other": vector(), "shelf": f"s{i % 3}"}
    for i in range(ROWS)
]


def l2(a, b):
    return math.fsum((x - y) ** 2 for x, y in zip(a, b))


def create():
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("title", DataType.VARCHAR, max_length=64)
    schema.add_field("pages", DataType.INT32)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("other", DataType.FLOAT_VECTOR, dim=DIM)
    indexes = client.prepare_index_params()
    indexes.add_index("dense", index_type="HNSW", metric_type="L2", M=16, efConstruction=100)
    indexes.add_index("other", index_type="IVF_FLAT", metric_type="COSINE", nlist=16)
    indexes.add_index("pages", index_type="STL_SORT")
    client.create_collection(NAME, schema=schema, index_params=indexes, consistency_level="Strong")
    assert NAME in client.list_collections()
    assert client.describe_index(NAME, "other")["index_type"] == "IVF_FLAT"


def insert():
    assert client.insert(NAME, rows)["insert_count"] == ROWS


def quick():
    client.create_collection("quick", dimension=DIM)
    client.insert("quick", [{"id": 1, "vector": vector(), "color": "red"}])
    found = client.search("quick", [vector()], limit=1, output_fields=["color"], consistency_level="Strong")
    assert found[0][0]["entity"]["color"] == "red", found
    client.drop_collection("quick")


def search():
    query = vector()
    expected = [row["id"] for row in sorted(rows, key=lambda row: l2(row["dense"], query))[:10]]
    found = client.search(NAME, [query], anns_field="dense", limit=10, output_fields=["title", "shelf"])
    assert [hit["id"] for hit in found[0]] == expected
    assert abs(found[0][0]["distance"] - l2(rows[expected[0]]["dense"], query)) < 1e-4
    assert found[0][0]["entity"]["title"] == f"book {expected[0]}"
    assert found[0][0]["entity"]["shelf"] == f"s{expected[0] % 3}"
    filtered = client.search(NAME, [query], anns_field="dense", limit=5, filter='pages < 5 and shelf == "s1"')
    assert filtered[0] and all(hit["id"] % 50 < 5 and hit["id"] % 3 == 1 for hit in filtered[0])


def query():
    found = client.query(NAME, filter="id in [3, 5, 7]", output_fields=["title", "pages", "dense"])
    assert [row["title"] for row in found] == ["book 3", "book 5", "book 7"]
    assert all(abs(a - b) < 1e-6 for a, b in zip(found[0]["dense"], rows[3]["dense"]))
    assert client.query(NAME, filter="pages == 49", output_fields=["count(*)"])[0]["count(*)"] == ROWS // 50
    got = client.get(NAME, ids=[11])
    assert got[0]["title"] == "book 11"


def iterators():
    seen = []
    iterator = client.query_iterator(NAME, batch_size=70, filter="id >= 0", output_fields=["id"])
    while page := iterator.next():
        seen.extend(row["id"] for row in page)
    iterator.close()
    assert sorted(seen) == list(range(ROWS)), len(seen)
    hits = []
    nearest = client.search_iterator(NAME, data=[rows[0]["dense"]], anns_field="dense", batch_size=40, limit=120)
    while page := nearest.next():
        hits.extend(hit["id"] for hit in page)
    nearest.close()
    assert len(hits) == len(set(hits)) == 120, len(hits)
    assert hits[0] == 0


def hybrid():
    query_vector = vector()
    parts = [
        AnnSearchRequest(data=[query_vector], anns_field="dense", param={"metric_type": "L2"}, limit=20),
        AnnSearchRequest(data=[query_vector], anns_field="other", param={"metric_type": "COSINE"}, limit=20),
    ]
    found = client.hybrid_search(NAME, parts, ranker=RRFRanker(60), limit=5, output_fields=["title"])
    scores = [hit["distance"] for hit in found[0]]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    grouped = client.hybrid_search(
        NAME, parts, ranker=RRFRanker(60), limit=2, output_fields=["shelf"], group_by_field="pages", group_size=2
    )
    groups = [hit["id"] % 50 for hit in grouped[0]]
    assert len(set(groups)) == 2 and len(groups) <= 4, groups
    params = {"reranker": "decay", "function": "gauss", "origin": 10, "scale": 5}
    fade = Function(name="fade", input_field_names=["pages"], function_type=FunctionType.RERANK, params=params)
    faded = [hit["distance"] for hit in client.hybrid_search(NAME, parts, ranker=fade, limit=5)[0]]
    assert len(faded) == 5 and faded == sorted(faded, reverse=True), faded


def upsert_delete():
    client.upsert(NAME, [{**rows[3], "title": "changed"}])
    assert client.get(NAME, ids=[3])[0]["title"] == "changed"
    assert client.delete(NAME, ids=[4])["delete_count"] == 1
    assert client.delete(NAME, filter="pages == 20")["delete_count"] == ROWS // 50
    left = client.query(NAME, filter="id >= 0", output_fields=["count(*)"])[0]["count(*)"]
    assert left == ROWS - 1 - ROWS // 50, left


def times():
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("at", DataType.TIMESTAMPTZ)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=DIM)
    indexes = client.prepare_index_params()
    indexes.add_index("dense", index_type="FLAT", metric_type="L2")
    properties = {"timezone": "Asia/Shanghai"}
    client.create_collection("times", schema=schema, index_params=indexes, consistency_level="Strong", properties=properties)
    told = ["2025-01-31 20:00:00", "2025-01-31T20:00:00Z"]
    client.insert("times", [{"id": i, "at": at, "dense": vector(), "age": {"years": 9 - i}} for i, at in enumerate(told)])
    shown = [row["at"] for row in client.query("times", filter="id >= 0", output_fields=["at"])]
    assert shown == ["2025-01-31T20:00:00+08:00", "2025-02-01T04:00:00+08:00"], shown
    filter = "at + INTERVAL 'P1M' < ISO '2025-03-04T00:00:00'"
    found = client.query("times", filter=filter, output_fields=["at"], timezone="America/New_York")
    assert [row["at"] for row in found] == ["2025-01-31T07:00:00-05:00", "2025-01-31T15:00:00-05:00"], found
    hits = client.search("times", [vector()], limit=2, output_fields=["at"], time_fields="year,day", order_by_fields=[{"field": 'age["years"]', "order": "asc"}])
    assert [(hit["id"], list(hit["entity"]["at"])) for hit in hits[0]] == [(1, [2025, 1]), (0, [2025, 31])], hits
    client.drop_collection("times")


def completed(at, job):
    for _ in range(600):
        state = at.get_restore_snapshot_state(job_id=job)
        if "Completed" in str(state.state):
            return
        assert "Failed" not in str(state.state), state
        time.sleep(0.1)
    raise AssertionError("the restore does not end")


def snapshot():
    before = client.query(NAME, filter="id >= 0", output_fields=["title"])
    client.create_snapshot(collection_name=NAME, snapshot_name="before", description="checks")
    assert "before" in client.list_snapshots(collection_name=NAME)
    client.delete(NAME, filter="id >= 0")
    completed(client, client.restore_snapshot(snapshot_name="before", source_collection_name=NAME, target_collection_name="restored"))
    client.load_collection("restored")
    after = client.query("restored", filter="id >= 0", output_fields=["title"], consistency_level="Strong")
    assert after == before, (len(after), len(before))
    client.drop_snapshot(snapshot_name="before", collection_name=NAME)


def databases():
    """A client of a database finds, restores into and lists that one alone, unless it names another."""
    client.create_database("tenant")
    tenant = MilvusClient(uri=f"http://{sys.argv[1]}", db_name="tenant")
    tenant.create_collection("shelf", dimension=DIM)
    tenant.insert("shelf", [{"id": i, "vector": vector()} for i in range(20)])
    tenant.create_snapshot(collection_name="shelf", snapshot_name="s")
    completed(tenant, tenant.restore_snapshot("s", source_collection_name="shelf", target_collection_name="here"))
    there = tenant.restore_snapshot("s", source_collection_name="shelf", target_collection_name="there", target_db_name="default")
    completed(tenant, there)
    assert sorted(tenant.list_collections()) == ["here", "shelf"], tenant.list_collections()
    assert "there" in client.list_collections() and "here" not in client.list_collections(), client.list_collections()
    for at, name in ((tenant, "here"), (client, "there")):
        at.load_collection(name)
        assert at.query(name, filter="id >= 0", output_fields=["count(*)"])[0]["count(*)"] == 20
    try:
        found = client.list_snapshots(collection_name="shelf")
        raise AssertionError(f"the default database shows {found} of another")
    except Exception as error:
        assert getattr(error, "code", None) == 100, error


def errors():
    try:
        client.query("nowhere", filter="id > 0")
    except Exception as error:  # the SDK's own class differs between versions; its code is what counts
        assert getattr(error, "code", None) == 100, error
        return
    raise AssertionError("a query of a collection that is not there succeeded")


failed = False
for check in (create, insert, quick, search, query, iterators, hybrid, upsert_delete, times, snapshot, databases, errors):
    try:
        check()
        print(json.dumps({"check": check.__name__, "ok": True, "detail": ""}), flush=True)
    except Exception:
        failed = True
        print(json.dumps({"check": check.__name__, "ok": False, "detail": traceback.format_exc(limit=3)}), flush=True)
client.close()
sys.exit(1 if failed else 0)
