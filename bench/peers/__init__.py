"""The same create as others would write it: each file is a whole service, on this project's tables."""
