"""Why two arrays differ, where their numbers tell: factors, layouts, activations, and what is not finite."""
