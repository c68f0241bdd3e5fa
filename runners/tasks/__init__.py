"""Tasks: what is trained, and how it is measured. Imports data, files and `cnn`; takes values, never a config."""
