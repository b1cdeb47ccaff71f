"""The only room that talks to MLflow: where the store is, one recorder for a run, the registry, searches."""
