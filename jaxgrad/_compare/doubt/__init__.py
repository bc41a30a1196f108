"""Where a number is in doubt: how far rounding may have it off, where no record says so."""
