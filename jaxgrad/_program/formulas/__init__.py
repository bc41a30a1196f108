"""What each named intermediate of a program is computed by, as a formula that a reader knows."""
