-- unknown_commits: how many commits are on record beside the blobs that this catalog does not have, when they were last
-- compared. More than none: the catalog is older than the store, and nothing is taken away.
ALTER TABLE collection ADD COLUMN unknown_commits BIGINT NOT NULL DEFAULT 0;

-- Each record is the difference to the nearest generation below that somebody sees. Earlier programs kept records of
-- generations that nobody sees, and must not write any more: these records go, and those that build on them are written
-- again. See service/records.py.
UPDATE record SET changes = changes + 1 WHERE noun = 'commit' AND gone = 0 AND recorded = changes
    AND NOT EXISTS (SELECT 1 FROM recovery_point AS point WHERE point.lineage_id = record.number
        AND point.generation = record.generation AND point.status <> 'DELETING')
    AND NOT EXISTS (SELECT 1 FROM lineage WHERE lineage.parent_lineage_id = record.number
        AND lineage.parent_generation = record.generation AND lineage.retired = 0);
