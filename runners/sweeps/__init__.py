"""Several jobs from one command, and what they came to. Imports training and what that imports."""
