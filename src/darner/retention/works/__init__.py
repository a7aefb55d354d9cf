"""Works that the sweeper is given by others: folding, dictionaries, the archive."""
