"""Several processes at one task: who they are, what each has to do, whether they are still there."""
