"""Corpora: simulated meetings, utterance groups, datasets and samplers."""
