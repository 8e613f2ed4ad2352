"""The theory of the paper, and a study of when downstream data help pretext learning."""
