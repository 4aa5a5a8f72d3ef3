"""From changed books to the messages each subscriber receives."""
