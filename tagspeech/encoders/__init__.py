"""The encoders of the two streams, and what they learn by."""
