"""The new embeddings: vectors, where they start, how they are kept in range, what makes a good name."""
