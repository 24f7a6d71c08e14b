"""Looking at programs without a model: trace, render, lint, graph, and what compiling a program finds out about it."""
