"""The command line: what is asked for, read and carried out; `__main__` alone prints and exits."""
