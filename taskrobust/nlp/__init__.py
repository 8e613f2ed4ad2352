from taskrobust.extras import require

require("nlp", __name__)
