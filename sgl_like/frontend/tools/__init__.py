"""Functions that the model may call, and other code of users that a state waits for."""
