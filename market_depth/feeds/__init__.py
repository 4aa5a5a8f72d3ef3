"""Where events come from: simulated venues and recorded files look the same from here on."""

from market_depth.feeds.base import MAX_BATCH_RECORDS, ChannelFeed, Feed, FeedError, FeedState

__all__ = ["MAX_BATCH_RECORDS", "ChannelFeed", "Feed", "FeedError", "FeedState"]
