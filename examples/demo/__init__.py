"""`make demo`: a federation under trust, an attack and the record, told as a story, every claim checked."""
