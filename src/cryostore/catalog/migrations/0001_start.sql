-- Times are milliseconds since 1970, UTC. JSON columns are TEXT. Generations: see docs/reference/formats.md, Catalog.
-- {, id}: a last column of an index that some engines put there by themselves. {- column}: one that some engines do
-- better without. {small}: a number below 2^31, of which there are so many that its bytes count. {selective}: an engine
-- that plans by statistics is to take it that one value of the column finds few rows, whatever it has seen so far.

CREATE TABLE vault (
    vault_id {id},
    name TEXT NOT NULL UNIQUE,
    creator_request_id TEXT,
    encryption_key_arn TEXT,
    tags TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);

-- A vault's data keys, wrapped by the master key. The newest seals; all of them open.
CREATE TABLE vault_key (
    key_number {id},
    key_id {blob} NOT NULL UNIQUE,
    vault_id BIGINT NOT NULL REFERENCES vault (vault_id),
    wrapped {blob} NOT NULL,
    created_ms BIGINT NOT NULL
);
CREATE INDEX vault_key_vault ON vault_key (vault_id{, key_number});

-- Secrets of the whole store, wrapped by the master key.
CREATE TABLE secret (
    name TEXT PRIMARY KEY,
    wrapped {blob} NOT NULL
);

CREATE TABLE access_key (
    access_key_id TEXT PRIMARY KEY,
    wrapped {blob} NOT NULL,
    root INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    created_ms BIGINT NOT NULL
);

-- A chain of recovery points. next_generation is given out to jobs and never again; tip_generation is the newest
-- committed one; dirty_generation is that of a job that ended without a commit and still has rows here. A retired
-- lineage is empty and needed by nobody, and waits for what only it saw of its parent to be removed.
CREATE TABLE lineage (
    lineage_id {id},
    vault_id BIGINT NOT NULL REFERENCES vault (vault_id),
    parent_lineage_id BIGINT REFERENCES lineage (lineage_id),
    parent_generation BIGINT,
    next_generation BIGINT NOT NULL,
    tip_generation BIGINT NOT NULL,
    dirty_generation BIGINT,
    retired INTEGER NOT NULL
);
CREATE INDEX lineage_vault ON lineage (vault_id);
CREATE INDEX lineage_parent ON lineage (parent_lineage_id) WHERE parent_lineage_id IS NOT NULL;
CREATE INDEX lineage_dirty ON lineage (lineage_id) WHERE dirty_generation IS NOT NULL;
CREATE INDEX lineage_retired ON lineage (lineage_id) WHERE retired = 1;

CREATE TABLE backup_job (
    job_id TEXT PRIMARY KEY,
    vault_id BIGINT NOT NULL REFERENCES vault (vault_id),
    point_id TEXT NOT NULL,
    resource_arn TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    resource_name TEXT,
    role_arn TEXT NOT NULL,
    state TEXT NOT NULL,
    status_message TEXT,
    message_category TEXT,
    created_ms BIGINT NOT NULL,
    initiated_ms BIGINT,
    start_by_ms BIGINT NOT NULL,
    complete_by_ms BIGINT NOT NULL,
    completed_ms BIGINT,
    active_ms BIGINT NOT NULL,
    lifecycle TEXT,
    options TEXT NOT NULL,
    base_selection TEXT NOT NULL,
    base_point_id TEXT,
    lineage_id BIGINT,
    generation BIGINT,
    revision BIGINT NOT NULL,
    bytes_transferred BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    commit_digest {blob}
);
CREATE INDEX backup_job_created ON backup_job (created_ms, job_id);
CREATE INDEX backup_job_open ON backup_job (vault_id, resource_arn) WHERE completed_ms IS NULL;

CREATE TABLE recovery_point (
    point_id TEXT PRIMARY KEY,
    vault_id BIGINT NOT NULL REFERENCES vault (vault_id),
    job_id TEXT NOT NULL,
    lineage_id BIGINT,
    generation BIGINT,
    resource_arn TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    resource_name TEXT,
    role_arn TEXT NOT NULL,
    status TEXT NOT NULL,
    status_message TEXT,
    created_ms BIGINT NOT NULL,
    initiated_ms BIGINT,
    completed_ms BIGINT,
    last_restore_ms BIGINT,
    size_bytes BIGINT NOT NULL,
    object_count BIGINT NOT NULL,
    lifecycle TEXT,
    restore_metadata TEXT NOT NULL,
    tags TEXT NOT NULL
);
CREATE INDEX recovery_point_vault ON recovery_point (vault_id, created_ms, point_id);
CREATE INDEX recovery_point_resource ON recovery_point (resource_arn, vault_id);
CREATE INDEX recovery_point_lineage ON recovery_point (lineage_id, generation);
CREATE INDEX recovery_point_deleting ON recovery_point (point_id) WHERE status = 'DELETING';

CREATE TABLE restore_job (
    job_id TEXT PRIMARY KEY,
    point_id TEXT NOT NULL,
    vault_id BIGINT NOT NULL,
    lineage_id BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    resource_arn TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    role_arn TEXT,
    status TEXT NOT NULL,
    status_message TEXT,
    metadata TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    completed_ms BIGINT,
    active_ms BIGINT NOT NULL,
    point_created_ms BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    created_resource_arn TEXT,
    completion_digest {blob}
);
CREATE INDEX restore_job_created ON restore_job (created_ms, job_id);
CREATE INDEX restore_job_open ON restore_job (point_id) WHERE completed_ms IS NULL;

-- An object version: seen by every generation g of its lineage with from_generation <= g < to_generation. A removed
-- one hides an object of that name in the parent lineage. chunks holds a chunk list of one part, chunk_list_id names
-- one of several parts.
CREATE TABLE object (
    object_id {id},
    lineage_id BIGINT NOT NULL,
    name {blob} NOT NULL,
    from_generation BIGINT NOT NULL,
    to_generation BIGINT NOT NULL,
    removed INTEGER NOT NULL,
    created_ms BIGINT NOT NULL,
    length BIGINT NOT NULL,
    chunk_count BIGINT NOT NULL,
    summary {blob},
    summary_form INTEGER NOT NULL,
    metadata_string TEXT,
    metadata_digest {blob},
    metadata_length BIGINT,
    metadata_form INTEGER,
    chunk_list_id BIGINT,
    chunks {blob}
);
CREATE UNIQUE INDEX object_name ON object (lineage_id, name, from_generation);
CREATE INDEX object_from ON object (lineage_id, from_generation{, object_id});
CREATE INDEX object_to ON object (lineage_id, to_generation, from_generation{, object_id})
    WHERE to_generation <> 9223372036854775807;
CREATE INDEX object_chunk_list ON object (chunk_list_id) WHERE chunk_list_id IS NOT NULL;
{selective object.lineage_id};
{selective object.from_generation};

CREATE TABLE chunk_list (
    chunk_list_id BIGINT NOT NULL,
    part BIGINT NOT NULL,
    first_index BIGINT NOT NULL,
    chunks {blob} NOT NULL,
    PRIMARY KEY (chunk_list_id, part)
) {clustered};

CREATE TABLE upload (
    upload_number {id},
    upload_id TEXT NOT NULL UNIQUE,
    job_id TEXT NOT NULL,
    name {blob} NOT NULL,
    throw_on_duplicate INTEGER NOT NULL,
    created_ms BIGINT NOT NULL,
    chunk_count BIGINT NOT NULL,
    completion_digest {blob}
);
CREATE INDEX upload_job ON upload (job_id{, upload_number});
{selective upload.job_id};

CREATE TABLE upload_chunk (
    upload_number BIGINT NOT NULL,
    chunk_index BIGINT NOT NULL,
    length BIGINT NOT NULL,
    form INTEGER NOT NULL,
    digest {blob} NOT NULL,
    PRIMARY KEY (upload_number, chunk_index)
) {clustered};

CREATE TABLE pack (
    pack_number {id},
    name TEXT NOT NULL UNIQUE,
    open INTEGER NOT NULL,
    created_ms BIGINT NOT NULL
);

-- Where the bytes with this digest lie, sealed under a key of this vault.
CREATE TABLE chunk (
    vault_id {small} NOT NULL,
    digest {blob} NOT NULL,
    key_number {small} NOT NULL,
    pack_number BIGINT NOT NULL,
    pack_offset {small} NOT NULL,
    sealed_length {small} NOT NULL,
    length {small} NOT NULL,
    PRIMARY KEY (vault_id, digest)
) {clustered};
CREATE INDEX chunk_pack ON chunk (pack_number{- pack_offset});

CREATE TABLE idempotency (
    operation TEXT NOT NULL,
    token TEXT NOT NULL,
    request_digest {blob} NOT NULL,
    answer TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (operation, token)
) {clustered};
CREATE INDEX idempotency_created ON idempotency (created_ms);
