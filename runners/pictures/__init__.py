"""Pictures as input for networks: reading, rotating, cropping. Imports no other wing."""
