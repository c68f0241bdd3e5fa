"""Tasks: what is trained and how it is measured. Takes values, never a config. Imports data, pictures, files, `cnn`."""
