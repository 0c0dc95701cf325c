"""A provider that answers the same question with the same words, and goes wrong when it is told to."""
