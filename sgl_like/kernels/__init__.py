"""Operations on tensors, one per file, each with its reference beside it."""
