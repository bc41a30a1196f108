"""A learner's derivatives, marked: whether each is right, and what went wrong where it is not."""
