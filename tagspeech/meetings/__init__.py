"""Whole meetings."""
