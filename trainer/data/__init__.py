"""The data that a configuration can name, and how it is handed out in batches."""
