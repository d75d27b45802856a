"""How a model is best run on this machine, and which model is best for it."""
