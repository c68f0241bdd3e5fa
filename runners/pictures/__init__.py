"""Pictures as input for networks: reading, rotating, cropping; and as what they give: grids, files. Imports no other
wing.
"""
