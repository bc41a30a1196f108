"""The file formats, each with what reads rows from it and what writes columns to it."""
