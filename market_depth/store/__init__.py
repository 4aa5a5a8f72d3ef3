"""What is kept in a database: sessions, best bids and offers, trades, snapshots. Import from the modules; here nothing heavy is loaded."""
