"""Everything that changes a job, an organisation or the catalogue.

Plain functions, tenant or object first, the actor passed in, one transaction each; decisions about leases and due times
use the database's clock. `transitions` is the only writer of `status`.
"""
