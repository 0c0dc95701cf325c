"""The example of docs/adding-a-service.md."""
