"""Utterance groups to batches: samplers, audio changed, features, pooled frames."""
