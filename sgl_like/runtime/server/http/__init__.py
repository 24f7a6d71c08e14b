"""What all endpoints share: routes, bodies, errors, streams, who may call."""
