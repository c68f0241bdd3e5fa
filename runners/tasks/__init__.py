"""Tasks: what is trained, and how it is measured. Imports data, files, pictures and
`cnn`; takes values, never a config.
"""
