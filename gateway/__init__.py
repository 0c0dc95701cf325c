"""The front door: who may ask, and the OpenAI-compatible interface."""
