"""A second witness of what filters mean: milvus-lite. Usage: filter_witness.py FILE DATABASE. FILE is JSON {"rows": [...], "filters": [text, ...]};
prints one line of JSON a filter: {"ids": [...]} or {"refused": text}."""

import json
import sys

from pymilvus import DataType, MilvusClient

with open(sys.argv[1]) as file:
    data = json.load(file)
client = MilvusClient(uri=sys.argv[2])
schema = MilvusClient.create_schema(enable_dynamic_field=True)
schema.add_field("id", DataType.INT64, is_primary=True)
schema.add_field("small", DataType.INT8, nullable=True)
schema.add_field("count", DataType.INT32)
schema.add_field("big", DataType.INT64, nullable=True)
schema.add_field("price", DataType.FLOAT, nullable=True)
schema.add_field("ratio", DataType.DOUBLE)
schema.add_field("flag", DataType.BOOL)
schema.add_field("name", DataType.VARCHAR, max_length=32, nullable=True)
schema.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4, max_length=32)
schema.add_field("sizes", DataType.ARRAY, element_type=DataType.INT64, max_capacity=4, nullable=True)
schema.add_field("doc", DataType.JSON, nullable=True)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
indexes = client.prepare_index_params()
indexes.add_index("vector", index_type="FLAT", metric_type="L2")
client.create_collection("filters", schema=schema, index_params=indexes)
client.insert("filters", data["rows"])
client.load_collection("filters")
for text in data["filters"]:
    try:
        found = client.query("filters", filter=text, output_fields=["id"], limit=len(data["rows"]))
        answer = {"ids": sorted(row["id"] for row in found)}
    except Exception as error:  # what it does not understand is no witness
        answer = {"refused": str(error)[:200]}
    print(json.dumps(answer), flush=True)
