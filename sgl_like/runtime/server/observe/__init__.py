"""What operators see: metrics, a log line for each call, spans, and what to look at when something seems wrong."""
