"""Queries, no rules. Reads take a connection, writes take the open ``Tx``; both give frozen values."""
