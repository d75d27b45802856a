"""Facts about RAM: what there is, what a process takes, what a model needs."""
