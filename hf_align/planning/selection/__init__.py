"""Which algorithm suits data, model, resources and needs."""
