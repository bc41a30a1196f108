"""The names of options in an error's text, as the command has them."""

import re


def in_flags(text: str) -> str:
    """An error's text with the options it names written as flags: `overwrite=True` as --overwrite."""
    return re.sub(r'`(\w+)(?:=(?:True|"(\w+)"))?`', lambda m: _flag(m[1], m[2]), text).replace('`"nan"`', "nan")


def _flag(option: str, value: str | None) -> str:
    return f"--{option.replace('_', '-')}" + (f" {value}" if value else "")
