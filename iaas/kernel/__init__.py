"""The leaf that everyone may use: clocks, ids, units, errors. Imports nothing else of the project."""
