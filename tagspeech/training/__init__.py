"""Training: one loop for four tasks (SOT, voice encoder, target texts, TagSpeech)."""
