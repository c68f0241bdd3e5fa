"""Several jobs from one command, and their results. Imports training and what that imports."""
