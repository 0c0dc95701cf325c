"""JSON schemas as grammars: every answer that one allows is valid, or the schema is refused by name and place."""
