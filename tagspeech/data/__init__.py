"""Utterance groups to batches: samplers, augmentation, features, pooled frames."""
