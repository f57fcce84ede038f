"""Looking at preference data before training on it: findings with rows, figures, fixes."""
