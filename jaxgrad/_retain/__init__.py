"""The transformation: the value and gradient of every intermediate that has a name."""
