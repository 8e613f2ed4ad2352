from taskrobust._io.tables import markdown_table


def test_html_and_pipes_of_texts_are_shown_as_they_are() -> None:
    table = markdown_table(["run", "risk"], [["<script>a|b</script>", "1.0"]])
    assert "| &lt;script>a\\|b&lt;/script> | 1.0 |" in table
