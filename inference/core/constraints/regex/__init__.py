"""Regular expressions as trees: read, restricted to what can be written, compared, and written for the compiler."""
