"""Read-only queries. Each starts from the organisation; another organisation's id is NotFound.

Statistics of jobs (`job_statistics`) were measured in two ways, in one run on a million ended jobs of one organisation
over 30 days (two processors with a load of 5, milliseconds at p50 and p95):

    jobs in the range                        33,000       233,000     1,000,000
    an index over every job, scanned        100 / 104    599 / 714   2,447 / 2,900
    tallies kept by a trigger                35 / 48      30 / 38        23 / 32

So tallies it is (`job_tallies`). A counter that every start and end of a job updates would make an organisation's jobs
wait for each other. Instead the trigger appends a row when a job ends, and a duty adds these rows to the tallies
(`duties.tallying`). A partial index counts the jobs that have not ended, so their claims write no tally. Settling a job
and claiming the next takes PostgreSQL 1.05 times the CPU that it takes with the index. The duty needs 50 µs a job,
later.
"""
