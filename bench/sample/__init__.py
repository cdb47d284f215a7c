"""Clusters to measure with."""
