"""The sweeper: works that each move some jobs, done in turn, in small transactions, by one manager at a time."""
