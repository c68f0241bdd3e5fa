"""Pictures as networks see them: read, turned, cropped. Imports no other wing."""
