"""Studies: the paper's theory, and whether downstream data help pretext learning."""
