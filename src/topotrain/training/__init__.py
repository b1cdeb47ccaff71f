"""One training run: fit, resume, selection of epochs, callbacks, what is recorded and registered."""
