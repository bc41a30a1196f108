"""Many files of rows, in folders here or elsewhere, into a folder of outputs."""
