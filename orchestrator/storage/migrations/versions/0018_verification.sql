-- The result of the last `bulkreg verify`, in one row. The sweeper serves it as a metric, so that an alarm can tell when it did not run.
CREATE TABLE orchestrator.verification (
    is_last      boolean     NOT NULL DEFAULT true PRIMARY KEY,
    breaches     integer     NOT NULL,
    completed_at timestamptz NOT NULL,
    CONSTRAINT verification_is_last CHECK (is_last)
);
GRANT SELECT, INSERT, UPDATE ON orchestrator.verification TO bulkreg_worker;
