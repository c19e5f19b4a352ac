"""What the mappings promise: the five laws, tables of both ways, and what stays in clear."""
