"""PostgreSQL with pgvector out of pgserver, for as long as stdin is open. Started as: pgvector_server.py DATA; prints {"uri", "bin"} when it is ready."""

import json
import sys
from pathlib import Path

import pgserver

data = sys.argv[1]
first = pgserver.get_server(data)
first.psql("CREATE EXTENSION vector; ALTER SYSTEM SET shared_buffers = '1GB'; ALTER SYSTEM SET max_wal_size = '4GB'")
first.cleanup()
server = pgserver.get_server(data, cleanup_mode="stop")
bin_folder = Path(pgserver.__file__).parent / "pginstall" / "bin"
print(json.dumps({"uri": server.get_uri(), "bin": str(bin_folder)}), flush=True)
sys.stdin.read()
server.cleanup()
