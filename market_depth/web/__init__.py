"""The web page: HTML, CSS and JavaScript modules, sent as they stand here."""
