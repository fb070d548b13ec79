"""Simulated speech and meetings, and replicas of published corpora."""
