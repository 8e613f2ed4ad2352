from taskrobust.nlp.corpus.annotate import annotate as annotate
