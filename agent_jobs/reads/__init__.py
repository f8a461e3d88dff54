"""Everything that only reads. Each read starts from the organisation; another one's id is NotFound."""
