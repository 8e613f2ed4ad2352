from taskrobust.extras import require

require("report", __name__)
