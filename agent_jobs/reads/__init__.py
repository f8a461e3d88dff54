"""Read-only queries. Each starts from the organisation; another organisation's id is NotFound."""
