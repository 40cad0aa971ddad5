-- readable by: 7
-- The processes that serve a shared store: see catalog/nodes.py. seen_ms: when it last reported. keys: the ids of the master
-- keys that it holds, as JSON. trouble: why it cannot use the blobs now; empty if it can.
CREATE TABLE node (
    name TEXT NOT NULL PRIMARY KEY,
    seen_ms BIGINT NOT NULL,
    keys TEXT NOT NULL,
    trouble TEXT NOT NULL
) {clustered};
