from taskrobust.extras import require

require("train", __name__)
