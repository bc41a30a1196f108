"""The output while it is being written, and what it says of itself."""
