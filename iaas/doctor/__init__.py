"""Compares the database with what the backends really have, names every drift and repairs what is safe."""
