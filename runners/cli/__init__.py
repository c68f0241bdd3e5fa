"""The commands: they parse arguments, call the other wings and print the results. Imports every other wing."""
