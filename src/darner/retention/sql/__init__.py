"""The statements that sort, count, move and remove jobs. Each function is one step of a transaction."""
