-- How many accepted items of all organizations are not done yet. The API, which sees one organization at a time, needs these two numbers to
-- refuse submissions while too much is waiting. A batch whose parts have not all arrived ('pending') has no items yet. The function runs with
-- its owner's rights, and returns nothing else.
CREATE FUNCTION orchestrator.backlog(OUT pending bigint, OUT folded bigint) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT (SELECT coalesce(sum(b.pending), 0) FROM orchestrator.batch b WHERE b.status = 'processing'),
           (SELECT coalesce(sum(p.next_offset), 0) FROM orchestrator.consumer_progress p WHERE p.topic = 'results')
$$;
REVOKE ALL ON FUNCTION orchestrator.backlog() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION orchestrator.backlog() TO bulkreg_api;
