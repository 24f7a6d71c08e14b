"""What becomes of a gen's text: values of types, checks, reasoning told apart."""
