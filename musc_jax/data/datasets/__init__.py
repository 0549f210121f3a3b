"""Readers of datasets, a module each."""
