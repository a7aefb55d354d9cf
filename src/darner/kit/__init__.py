"""Tools that would be at home in any project: clock, retry, limits, configuration, log, units, files. Nothing of the field."""
