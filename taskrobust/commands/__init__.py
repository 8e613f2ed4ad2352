"""The commands, one per file: ``taskrobust pretrain-bert`` is ``pretrain_bert`` in pretrain_bert.py."""
