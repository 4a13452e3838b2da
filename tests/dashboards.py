"""Holds the dashboards against Grafana's own schema, as its Foundation SDK has it: every field of a file is one that the
schema knows, with a value that survives being read and written by it. Prints what does not; exit code 1 then."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def differences(ours, theirs, path):
    """The places at which what was read differs from what is written. Null is the same as nothing."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            if name not in theirs and value is not None:
                yield f"{path}.{name} is not in the schema"
            elif name in theirs:
                yield from differences(value, theirs[name], f"{path}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, (one, other) in enumerate(zip(ours, theirs)):
            yield from differences(one, other, f"{path}[{place}]")
    elif ours != theirs:
        yield f"{path} is {ours!r}, and was read as {theirs!r}"


found = []
for file in sys.argv[1:]:
    with open(file, encoding="utf-8") as text:
        ours = json.load(text)
    theirs = json.loads(json.dumps(Dashboard.from_json(ours), cls=JSONEncoder))
    found += differences(ours, theirs, file)
print("\n".join(found))
sys.exit(bool(found))
