"""The only room that knows MLflow: a store that answers with frozen records, a recorder that writes."""
