"""Evaluations that read and write text: TextVQA, perplexity, multiple choice."""
