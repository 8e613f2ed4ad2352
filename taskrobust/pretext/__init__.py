"""Pretext learning boosted by downstream data: processors, the conditions they must meet, and the whole pipeline."""
