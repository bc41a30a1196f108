"""Rows in files: the neuron's quantities for each row of a file, into a file."""
