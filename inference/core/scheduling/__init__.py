"""Which tokens of which sequences run in the next step: continuous batching on paged KV memory, free of torch."""
