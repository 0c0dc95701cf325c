"""TensorRT-LLM behind the engine port, over its `LLM` API. Imported only where it was chosen."""
