"""Slack's limits as named constants, each with what happens beyond it. Pure numbers; `bot.slack.lint` enforces them.

Sources: Slack's Block Kit reference (docs.slack.dev) and slack_sdk's models; where two sources differ the smaller
number stands, because a refused card is worse than a short one. Lengths count characters, as Slack does.
"""

from __future__ import annotations

# -- messages ---------------------------------------------------------------------------------------------------------
MESSAGE_BLOCKS = 50  # `invalid_blocks` beyond
MESSAGE_TEXT = 40_000  # Slack cuts the text there in silence, or answers `msg_too_long`
MESSAGE_TEXT_ADVISED = 4000  # Slack's advice; what we send as a fallback stays below
MESSAGE_MARKDOWN = 12_000  # all `markdown` blocks of a message together, and a streamed answer
MESSAGE_CHARTS = 2  # `data_visualization` blocks
MESSAGE_TABLES = 1  # `table` blocks: `only_one_table_allowed`
EVENT_TYPE = 255  # of message metadata

# -- views ------------------------------------------------------------------------------------------------------------
VIEW_BLOCKS = 100  # modals and home pages take twice a message's
VIEW_TITLE = 24  # a modal's title, submit and close: one line on a phone
PRIVATE_METADATA = 3000
CALLBACK_ID = 255
EXTERNAL_ID = 255
VIEW_BYTES = 250_000  # `view_too_large`

# -- blocks -----------------------------------------------------------------------------------------------------------
BLOCK_ID = 255
SECTION_TEXT = 3000
SECTION_FIELDS = 10
FIELD_TEXT = 2000
HEADER_TEXT = 150
CONTEXT_ELEMENTS = 10
CONTEXT_TEXT = 3000  # a text object's own limit
ACTIONS_ELEMENTS = 25
CONTEXT_ACTIONS_ELEMENTS = 5
INPUT_LABEL = 2000
INPUT_HINT = 2000
IMAGE_URL = 3000
ALT_TEXT = 2000
IMAGE_TITLE = 2000
RICH_TEXT_BORDER = 1  # 0 or 1

# -- tables -----------------------------------------------------------------------------------------------------------
TABLE_ROWS = 100
TABLE_COLUMNS = 20
TABLE_CHARACTERS = 10_000  # all cells together
DATA_TABLE_ROWS_LEAST = 2  # a header and one row
DATA_TABLE_ROWS = 101  # a header and a hundred; some clients are said to take 201
DATA_TABLE_PAGE = 100  # rows a page

# -- charts -----------------------------------------------------------------------------------------------------------
CHART_TITLE = 50
CHART_POINTS = 20  # categories, and points of each series
CHART_LABEL = 20  # characters of a category, a point, a segment and a series' name
CHART_SERIES = 6  # the reference says 6, others 12
CHART_AXIS = 50  # characters of an axis' title

# -- elements ---------------------------------------------------------------------------------------------------------
ACTION_ID = 255
BUTTON_TEXT = 75  # clients show about 30
BUTTON_VALUE = 2000
BUTTON_URL = 3000
ACCESSIBILITY_LABEL = 75
PLACEHOLDER = 150
OPTIONS = 100  # of a select
OPTION_TEXT = 75
OPTION_VALUE = 150
OVERFLOW_OPTIONS = 5
CHOICES = 10  # of radio buttons and checkboxes
INPUT_TEXT = 3000  # what a person may type into a plain-text input
CONFIRM_TITLE = 100
CONFIRM_TEXT = 300
CONFIRM_BUTTON = 30
