"""`tagspeech serve`: a page and an API that transcribe recordings, one after another.

page, API -> guard -> app, transcriptions -> uploads -> jobs, a queue on disk -> worker
"""
