"""Simulated speech and meetings."""
