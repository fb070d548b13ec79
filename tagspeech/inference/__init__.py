"""Inference: from audio to segments with a trained model.

recording -> windows -> Recognizer -> stitched, speakers linked -> segments
"""
