"""The torch engine: model loading, the forward pass on paged KV memory, and the engine loop over it."""
