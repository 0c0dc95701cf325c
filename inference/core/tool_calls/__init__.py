"""Tool calls of models that write text: how a model spells them, how it is held to that, how they are read back."""
