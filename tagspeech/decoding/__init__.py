"""Decoding: from features to target text to segments."""
