"""Ports from PyTorch: the original recorded, and its names and layouts matched with those of the port."""
