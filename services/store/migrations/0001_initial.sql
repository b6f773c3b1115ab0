-- Times are microseconds since the Unix epoch; 0 means "not yet". Columns of type BLOB hold serialized
-- messages of plumbline.v1. Prompts and answers live in cell_texts, result_texts, experiment_prompts and
-- experiments.study, token ids in results.result: a purge takes all of them away and leaves verdicts.

CREATE TABLE experiments (
  id TEXT PRIMARY KEY,
  number BIGINT NOT NULL UNIQUE,
  request_id TEXT NOT NULL UNIQUE,
  request_digest TEXT NOT NULL,
  study BLOB NOT NULL,
  judge TEXT NOT NULL,
  state INTEGER NOT NULL,
  stage_index INTEGER NOT NULL DEFAULT 0,
  stage TEXT NOT NULL DEFAULT '',
  message TEXT NOT NULL DEFAULT '',
  created_us BIGINT NOT NULL,
  updated_us BIGINT NOT NULL,
  ended_us BIGINT NOT NULL DEFAULT 0,
  bound INTEGER NOT NULL DEFAULT 0,
  model BLOB NOT NULL,
  numerics BLOB NOT NULL,
  judge_version TEXT NOT NULL DEFAULT '',
  report BLOB NOT NULL,
  violations BIGINT NOT NULL DEFAULT 0,
  texts_purged INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX experiments_by_state ON experiments (state);

CREATE TABLE experiment_prompts (
  experiment_id TEXT NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
  position BIGINT NOT NULL,
  prompt BLOB NOT NULL,
  PRIMARY KEY (experiment_id, position)
);

CREATE TABLE experiment_prompt_sets (
  experiment_id TEXT NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
  position BIGINT NOT NULL,
  summary BLOB NOT NULL,
  PRIMARY KEY (experiment_id, position)
);

-- state: 0 open, 1 leased, 2 stored, 3 poisoned (services/store/records.h).
CREATE TABLE cells (
  cell_key TEXT PRIMARY KEY,
  kind INTEGER NOT NULL,
  model_digest TEXT NOT NULL,
  numerics_class_id TEXT NOT NULL,
  spec BLOB NOT NULL,
  state INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  not_before_us BIGINT NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT ''
);

CREATE TABLE cell_texts (
  cell_key TEXT PRIMARY KEY REFERENCES cells (cell_key) ON DELETE CASCADE,
  turns BLOB NOT NULL
);

CREATE TABLE experiment_cells (
  experiment_id TEXT NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
  cell_key TEXT NOT NULL REFERENCES cells (cell_key),
  cell_condition TEXT NOT NULL,
  prompt_id TEXT NOT NULL,
  prompt_set TEXT NOT NULL,
  stage_index INTEGER NOT NULL,
  stage TEXT NOT NULL,
  position BIGINT NOT NULL,
  shared INTEGER NOT NULL,
  PRIMARY KEY (experiment_id, cell_key, cell_condition)
);
CREATE INDEX experiment_cells_in_order ON experiment_cells (experiment_id, stage_index, position);
CREATE INDEX experiment_cells_by_cell ON experiment_cells (cell_key);

CREATE TABLE results (
  cell_key TEXT PRIMARY KEY REFERENCES cells (cell_key) ON DELETE CASCADE,
  result BLOB NOT NULL,
  digest TEXT NOT NULL,
  worker_id TEXT NOT NULL,
  stored_us BIGINT NOT NULL,
  finish_reason INTEGER NOT NULL,
  tokens BIGINT NOT NULL
);

CREATE TABLE result_texts (
  cell_key TEXT PRIMARY KEY REFERENCES results (cell_key) ON DELETE CASCADE,
  answer TEXT NOT NULL
);

CREATE TABLE verdicts (
  cell_key TEXT NOT NULL REFERENCES results (cell_key) ON DELETE CASCADE,
  judge TEXT NOT NULL,
  judge_version TEXT NOT NULL,
  verdict_key TEXT NOT NULL,
  label INTEGER NOT NULL,
  evidence TEXT NOT NULL,
  PRIMARY KEY (cell_key, judge, judge_version)
);
CREATE INDEX verdicts_by_key ON verdicts (verdict_key);

CREATE TABLE leases (
  lease_id TEXT PRIMARY KEY,
  worker_id TEXT NOT NULL,
  incarnation_id TEXT NOT NULL,
  expires_us BIGINT NOT NULL,
  resends INTEGER NOT NULL DEFAULT 0,
  audit INTEGER NOT NULL DEFAULT 0,
  capture_id TEXT NOT NULL DEFAULT ''
);
CREATE INDEX leases_by_worker ON leases (worker_id);

CREATE TABLE lease_cells (
  lease_id TEXT NOT NULL REFERENCES leases (lease_id) ON DELETE CASCADE,
  cell_key TEXT NOT NULL REFERENCES cells (cell_key),
  position BIGINT NOT NULL,
  PRIMARY KEY (lease_id, cell_key)
);
CREATE INDEX lease_cells_by_cell ON lease_cells (cell_key);

-- state: as of cells; a stored capture is one that the capture service holds.
CREATE TABLE captures (
  capture_id TEXT PRIMARY KEY,
  model_digest TEXT NOT NULL,
  numerics_class_id TEXT NOT NULL,
  task BLOB NOT NULL,
  state INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  not_before_us BIGINT NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT '',
  digest TEXT NOT NULL DEFAULT '',
  tokens BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE experiment_captures (
  experiment_id TEXT NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
  capture_id TEXT NOT NULL REFERENCES captures (capture_id),
  stage_index INTEGER NOT NULL,
  PRIMARY KEY (experiment_id, capture_id)
);
CREATE INDEX experiment_captures_by_capture ON experiment_captures (capture_id);

CREATE TABLE quarantine (
  worker_id TEXT PRIMARY KEY,
  reason TEXT NOT NULL,
  since_us BIGINT NOT NULL
);

-- One row for each pair of results of one cell that differed.
CREATE TABLE violations (
  number BIGINT PRIMARY KEY,
  cell_key TEXT NOT NULL,
  first_worker TEXT NOT NULL,
  first_digest TEXT NOT NULL,
  second_worker TEXT NOT NULL,
  second_digest TEXT NOT NULL,
  at_us BIGINT NOT NULL
);
CREATE INDEX violations_by_cell ON violations (cell_key);

-- Cells to run a second time on another worker. state: 0 wanted, 1 leased, 2 equal, 3 different.
CREATE TABLE audits (
  cell_key TEXT PRIMARY KEY REFERENCES cells (cell_key) ON DELETE CASCADE,
  first_worker TEXT NOT NULL,
  state INTEGER NOT NULL DEFAULT 0
);
