"""Using a model: scorer, served model and its files, predict, score structures, import of weights."""
