"""What the store holds as files of other programs: NDJSON, CSV and Parquet."""
