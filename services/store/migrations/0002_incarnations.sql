-- Who computed a result: a process of a worker, with its build and its machine.
CREATE TABLE incarnations (
  incarnation_id TEXT PRIMARY KEY,
  worker_id TEXT NOT NULL,
  version TEXT NOT NULL,
  machine TEXT NOT NULL
);
ALTER TABLE results ADD COLUMN incarnation_id TEXT NOT NULL DEFAULT '';
