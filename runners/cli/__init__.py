"""The commands: they parse, call what does the work, and print how it went. Imports every other wing."""
